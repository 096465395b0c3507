"""ShapeMask's coarse mask: the shape prior, corrected by the features of the outer box."""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

INITIAL_LOGIT = -4.595119850134589  # log(0.01 / 0.99)


def conv_tower(num_convs: int, channels: int, norm_cfg: dict) -> nn.Sequential:
    """Return 3×3 convs with BN and ReLU; like the release's, they have a bias too."""
    return nn.Sequential(
        *(
            ConvModule(channels, channels, 3, padding=1, bias=True, norm_cfg=norm_cfg, inplace=False)
            for _ in range(num_convs)
        )
    )


def init_convs(module: nn.Module) -> None:
    """Draw the convs of a head."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)


class CoarseMaskHead(BaseModule):
    """Logits of a mask of 32×32 cells from the features and the shape prior.

    Args:
        num_masks: 1, or the number of classes with the background.
        channels: of the features.
        num_convs: 3×3 convs.
        norm_cfg: config of their norm.
    """

    def __init__(self, num_masks: int, channels: int, num_convs: int, norm_cfg: dict) -> None:
        super().__init__()
        self.prior = nn.Linear(1, channels)
        self.convs = conv_tower(num_convs, channels, norm_cfg)
        self.logits = nn.Conv2d(channels, num_masks, 1)

    def init_weights(self) -> None:
        """Draw the weights; every pixel begins as background."""
        super().init_weights()
        init_convs(self)
        nn.init.xavier_uniform_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)
        nn.init.constant_(self.logits.bias, INITIAL_LOGIT)

    def forward(self, features: Tensor, prior: Tensor, channel: Tensor) -> Tensor:
        """Return logits (N, 32, 32).

        Args:
            features: shape (N, C, 32, 32).
            prior: the shape prior, shape (N, 32, 32).
            channel: which of the masks each object takes, shape (N,).
        """
        x = self.convs(features + self.prior(prior[..., None]).permute(0, 3, 1, 2))
        weight, bias = self.logits.weight[channel], self.logits.bias[channel]  # (N, C, 1, 1), (N,)
        return (x * weight).sum(1) + bias[:, None, None]
