"""ShapeMask's pyramid: FPN with a BN at the end of each level."""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ShapeMaskFPN(FPN):
    """FPN (P3 to P7) whose levels end with BN without activation.

    P6 comes from P5 and P7 from ReLU(P6), both before BN. The ``norm_cfg`` of MMDetection's FPN would normalize the
    laterals too, and P5 and P6 before they are read.

    Args:
        norm_cfg: config of the BN.
        **kwargs: other arguments of :class:`mmdet.models.FPN`. With ``conv_cfg=dict(type='Conv2dAdaptivePadding')`` P6
            and P7 are padded as in TensorFlow, an even side by 0 before and 1 after.
    """

    def __init__(self, norm_cfg: dict, **kwargs) -> None:
        super().__init__(add_extra_convs='on_output', relu_before_extra_convs=True, **kwargs)
        self.norms = nn.ModuleList(build_norm_layer(norm_cfg, self.out_channels)[1] for _ in range(self.num_outs))

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the levels, shape (N, C, H, W) each, of the backbone's C3 to C5."""
        return tuple(norm(level) for norm, level in zip(self.norms, super().forward(inputs), strict=True))
