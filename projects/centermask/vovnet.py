"""VoVNet and VoVNetV2 (paper, section 2.5 and Fig. 3): a backbone of One-Shot Aggregation modules.

VoVNetV2 is VoVNet with two additions in every OSA module: an effective Squeeze-Excitation (eSE) after the aggregation
and a residual connection around the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch.nn.functional as F
import torch.utils.checkpoint
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Variant(NamedTuple):
    """Widths and depths of one VoVNet, stages 2 to 5."""

    conv_widths: tuple[int, int, int, int]
    out_widths: tuple[int, int, int, int]
    convs_per_block: int
    blocks_per_stage: tuple[int, int, int, int]
    depthwise: bool = False


_WIDTHS: dict = dict(conv_widths=(128, 160, 192, 224), out_widths=(256, 512, 768, 1024))
_SLIM_WIDTHS: dict = dict(conv_widths=(64, 80, 96, 112), out_widths=(112, 256, 384, 512))

VARIANTS = {
    '19': Variant(**_WIDTHS, convs_per_block=3, blocks_per_stage=(1, 1, 1, 1)),
    '19-dw': Variant(**_WIDTHS, convs_per_block=3, blocks_per_stage=(1, 1, 1, 1), depthwise=True),
    '19-slim': Variant(**_SLIM_WIDTHS, convs_per_block=3, blocks_per_stage=(1, 1, 1, 1)),
    '19-slim-dw': Variant(**_SLIM_WIDTHS, convs_per_block=3, blocks_per_stage=(1, 1, 1, 1), depthwise=True),
    '39': Variant(**_WIDTHS, convs_per_block=5, blocks_per_stage=(1, 1, 2, 2)),
    '57': Variant(**_WIDTHS, convs_per_block=5, blocks_per_stage=(1, 1, 4, 3)),
    '99': Variant(**_WIDTHS, convs_per_block=5, blocks_per_stage=(1, 3, 9, 3)),
}
Arch = Literal['19', '19-dw', '19-slim', '19-slim-dw', '39', '57', '99', 19, 39, 57, 99]


class EffectiveSE(nn.Module):
    """Effective Squeeze-Excitation (eSE): one fully connected layer that keeps the number of channels.

    The paper writes a sigmoid; every released weight was trained with the hard one, relu6(x + 3) / 6.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C, H, W), each channel weighed by its attention."""
        attention = F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))  # Eq. 6: (N, C, 1, 1)
        return x * attention  # Eq. 7


class SqueezeExcitation(nn.Module):
    """Squeeze-Excitation (SE, compared in Table 4): two layers with a quarter of the channels between them.

    The second activation is the hard sigmoid, as in :class:`EffectiveSE`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1)
        self.fc2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C, H, W), each channel weighed by its attention."""
        squeezed = self.fc1(x.mean((2, 3), keepdim=True)).relu()  # (N, C / 4, 1, 1)
        attention = F.hardsigmoid(self.fc2(squeezed))  # Eq. 5: (N, C, 1, 1)
        return x * attention


ATTENTIONS: dict[str, type[nn.Module]] = {'none': nn.Identity, 'se': SqueezeExcitation, 'ese': EffectiveSE}


class OSAModule(nn.Module):
    """One-Shot Aggregation (Fig. 3): a chain of convs of which all outputs are aggregated once, at the end.

    Args:
        in_channels, conv_channels, out_channels: channels of the input, of each conv and of the result.
        num_convs: convs in the chain.
        residual: whether the input is added to the result.
        attention: a key of :data:`ATTENTIONS`.
        depthwise: whether each conv is a depthwise separable one.
        conv_cfg, norm_cfg: MMCV's layer configs for the 3×3 convs and for the norms.
    """

    def __init__(
        self,
        in_channels: int,
        conv_channels: int,
        out_channels: int,
        num_convs: int,
        residual: bool,
        attention: str,
        depthwise: bool,
        conv_cfg: dict | None,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.reduce: nn.Module = nn.Identity()
        widths = [in_channels] + [conv_channels] * num_convs
        if depthwise and in_channels != conv_channels:
            self.reduce = ConvModule(in_channels, conv_channels, 1, norm_cfg=norm_cfg)
            widths[0] = conv_channels
        self.convs = nn.ModuleList(
            _conv3x3(widths[i], conv_channels, 1, depthwise, conv_cfg, norm_cfg) for i in range(num_convs)
        )
        self.aggregate = ConvModule(in_channels + num_convs * conv_channels, out_channels, 1, norm_cfg=norm_cfg)
        self.attention = ATTENTIONS[attention](out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, ``out_channels``, H, W) of features (N, ``in_channels``, H, W)."""
        outputs = [x]
        y = self.reduce(x)
        for conv in self.convs:
            y = conv(y)
            outputs.append(y)
        y = self.attention(self.aggregate(torch.cat(outputs, dim=1)))
        return x + y if self.residual else y


def _conv3x3(
    in_channels: int, out_channels: int, stride: int, depthwise: bool, conv_cfg: dict | None, norm_cfg: dict
) -> nn.Module:
    """Return a 3×3 conv-BN-ReLU, or if depthwise a 3×3 conv without norm and activation and a 1×1 conv-BN-ReLU."""
    if depthwise:
        return DepthwiseSeparableConvModule(
            in_channels,
            out_channels,
            3,
            stride,
            padding=1,
            bias=False,
            norm_cfg=norm_cfg,
            dw_norm_cfg=None,
            dw_act_cfg=None,
        )
    return ConvModule(in_channels, out_channels, 3, stride, padding=1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)


class OSAStage(nn.Module):
    """A stage of VoVNet (Fig. 3): a max pool that halves the size (stage 2 has none), then OSA modules.

    The pool rounds sizes up. The first module changes the number of channels, so it has no residual connection.
    """

    def __init__(self, pool: bool, blocks: Sequence[OSAModule]) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True) if pool else nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C of the last module, ceil(H / 2), ceil(W / 2)) of features (N, C, H, W); stage 2: (…, H, W)."""
        return self.blocks(self.pool(x))


@MODELS.register_module()
class VoVNet(BaseModule):
    """VoVNetV2 (compared with other backbones in Table 3), and VoVNet (V1) with ``attention='none', residual=False``.

    Args:
        arch: a key of :data:`VARIANTS`, such as ``'19-slim'`` or ``'39'``. ``--cfg-options`` turns 39 into a number.
        attention: ``'ese'`` (V2), ``'se'`` or ``'none'`` (V1); compared in Table 4.
        attention_blocks: which OSA modules of a stage have it: ``'every'`` one (both releases) or the ``'last'``
            (timm's weights).
        residual: whether every OSA module of a stage but its first adds its input to its result (V2; Table 4).
        dcn_stages: whether stage 2, 3, 4, 5 uses modulated deformable 3×3 convs.
        out_indices: which of stages 2, 3, 4, 5 (counted from 0) are returned.
        frozen_stages: -1 trains all; 0 freezes the stem, n also the first n stages.
        norm_cfg: MMCV's norm config. ``requires_grad=False`` freezes the affine parameters.
        norm_eval: whether BN keeps its statistics in training.
        with_cp: whether stages recompute their activations in the backward pass, to save memory.

    Raises:
        ValueError: for deformable convs in a depthwise variant, or norms that train with epsilon 0.
    """

    def __init__(
        self,
        arch: Arch,
        attention: Literal['ese', 'se', 'none'] = 'ese',
        attention_blocks: Literal['every', 'last'] = 'every',
        residual: bool = True,
        dcn_stages: Sequence[bool] = (False, False, False, False),
        out_indices: Sequence[Literal[0, 1, 2, 3]] = (1, 2, 3),
        frozen_stages: Literal[-1, 0, 1, 2, 3, 4] = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = True,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        variant = VARIANTS[str(arch)]
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        if not norm_eval and norm_cfg.get('eps') == 0:
            raise ValueError('a BN that trains needs an epsilon above 0: with norm_eval=False set norm_cfg.eps=1e-5')
        if variant.depthwise and any(dcn_stages):
            raise ValueError(f'the depthwise VoVNet {arch} has no deformable convs: leave dcn_stages out')
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        stem_width = 64 if variant.depthwise else 128
        self.stem = nn.Sequential(
            _conv3x3(3, 64, 2, False, None, norm_cfg),
            _conv3x3(64, 64, 1, variant.depthwise, None, norm_cfg),
            _conv3x3(64, stem_width, 2, variant.depthwise, None, norm_cfg),
        )
        self.stages = nn.ModuleList()
        for i, in_channels in enumerate([stem_width, *variant.out_widths[:-1]]):
            last = variant.blocks_per_stage[i] - 1
            blocks = [
                OSAModule(
                    variant.out_widths[i] if block else in_channels,
                    variant.conv_widths[i],
                    variant.out_widths[i],
                    variant.convs_per_block,
                    residual=residual and block > 0,
                    attention=attention if attention_blocks == 'every' or block == last else 'none',
                    depthwise=variant.depthwise,
                    conv_cfg=dict(type='DCNv2') if dcn_stages[i] else None,
                    norm_cfg=norm_cfg,
                )
                for block in range(last + 1)
            ]
            self.stages.append(OSAStage(pool=i > 0, blocks=blocks))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen stages' features, strides 4, 8, 16, 32, of images (N, 3, H, W)."""
        x = self.stem(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            if self.with_cp and x.requires_grad:
                x = torch.utils.checkpoint.checkpoint(stage, x, use_reentrant=False)
            else:
                x = stage(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def _frozen_parts(self) -> list[nn.Module]:
        return [self.stem, *self.stages][: self.frozen_stages + 1]

    def _freeze_stages(self) -> None:
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> VoVNet:
        """Set training or evaluation mode; frozen stages and, with ``norm_eval``, all norms stay in evaluation."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
