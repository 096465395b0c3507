"""The spatial attention-guided mask head (SAG-Mask; paper, section 2.4 and Fig. 2)."""

from __future__ import annotations

import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Spatial attention module (SAM): a weight for each position, from the mean and maximum over channels.

    The paper writes the maximum first; both releases concatenate the mean first, and so do their weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return RoI features (R, C, 14, 14), each position weighed by its attention."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (R, 2, 14, 14)
        attention = self.conv(pooled).sigmoid()  # Eq. 3: (R, 1, 14, 14)
        return x * attention  # Eq. 4


@MODELS.register_module()
class SAGMaskHead(FCNMaskHead):
    """Mask R-CNN's mask head with a spatial attention module after its convs (Fig. 2).

    Args:
        num_classes: number of classes.
        spatial_attention: whether to use the attention module (compared in Table 1).
        legacy_background: whether channel 0 is the background, so that class c reads channel c + 1 (released weights
            of the paper recipe).
        **kwargs: other arguments of :class:`mmdet.models.FCNMaskHead`.
    """

    def __init__(
        self, num_classes: int = 80, spatial_attention: bool = True, legacy_background: bool = False, **kwargs
    ) -> None:
        super().__init__(num_classes=num_classes + int(legacy_background), **kwargs)
        self.first_class = int(legacy_background)
        self.spatial_attention = SpatialAttention() if spatial_attention else nn.Identity()

    def init_weights(self) -> None:
        """Initialise the weights."""
        super().init_weights()
        # FCNMaskHead's initial values grow as classes get fewer, and its gradients then drown the box head's.
        nn.init.normal_(self.conv_logits.weight, std=0.001)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return mask logits (R, 28, 28), each of its RoI's class.

        Args:
            x: RoI features, shape (R, C, 14, 14).
            labels: classes of the RoIs, shape (R,).
        """
        for conv in self.convs:
            x = conv(x)  # (R, 256, 14, 14)
        x = self.spatial_attention(x)
        x = self.relu(self.upsample(x))  # (R, 256, 28, 28)
        # The 1×1 conv for one channel an RoI: all channels of 1200 classes would take gigabytes.
        channels = labels + self.first_class
        weight, bias = self.conv_logits.weight[channels], self.conv_logits.bias[channels]
        return torch.bmm(weight.flatten(1)[:, None], x.flatten(2)).view(-1, *x.shape[2:]) + bias[:, None, None]
