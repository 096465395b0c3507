"""The spatial attention-guided mask head (SAG-Mask; paper, section 2.4 and Fig. 2)."""

from __future__ import annotations

import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from .arguments import flags, given, refuse, typed, whole_numbers


class SpatialAttention(nn.Module):
    """Spatial attention module (SAM, Eq. 3 and 4): a weight for each position, from the mean and maximum over channels.

    Eq. 3 writes the maximum first; both releases concatenate the mean first, and their weights want it so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return RoI features (R, C, 14, 14), each position weighed by its attention."""
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (R, 2, 14, 14)
        return x * self.conv(pooled).sigmoid()


@MODELS.register_module()
class SAGMaskHead(FCNMaskHead):
    """Mask R-CNN's mask head with a spatial attention module after its convs.

    Args:
        num_classes: classes of objects.
        spatial_attention: whether there is the attention (Table 1 switches it off).
        legacy_background: whether channel 0 stands for the background, so that class c reads channel c + 1
            (the paper recipe's released layout).
        **kwargs: as :class:`mmdet.models.FCNMaskHead` takes them; each class has a mask of its own, and masks are
            upsampled.

    Raises:
        ValueError: for an argument of none of these values.
    """

    def __init__(
        self, num_classes: int = 80, spatial_attention: bool = True, legacy_background: bool = False, **kwargs
    ) -> None:
        name = type(self).__name__
        flags(name, dict(spatial_attention=spatial_attention, legacy_background=legacy_background))
        whole_numbers(name, dict(num_classes=num_classes))
        sizes = ('roi_feat_size', 'in_channels', 'conv_kernel_size', 'conv_out_channels')
        whole_numbers(name, given(kwargs, *sizes))
        whole_numbers(name, given(kwargs, 'num_convs'), 0)
        if kwargs.get('class_agnostic', False) is not False:
            refuse(
                name, 'class_agnostic', "is False, as a mask is read from its class's channel", kwargs['class_agnostic']
            )
        upsampling = kwargs.get('upsample_cfg', dict(type='deconv'))
        if not isinstance(upsampling, dict) or not upsampling.get('type'):
            refuse(name, 'upsample_cfg', "is a dict with a type such as 'deconv'", upsampling)
        whole_numbers(name, {'upsample_cfg.scale_factor': upsampling.get('scale_factor', 2)})
        typed(name, given(kwargs, 'conv_cfg', 'norm_cfg', 'predictor_cfg', 'loss_mask'))
        if kwargs.get('init_cfg') is not None:
            refuse(name, 'init_cfg', 'is None, as its layers have rules of their own', kwargs['init_cfg'])
        super().__init__(num_classes=num_classes + int(legacy_background), **kwargs)
        self.first_class = int(legacy_background)
        self.spatial_attention = SpatialAttention() if spatial_attention else nn.Identity()

    def init_weights(self) -> None:
        """Give the head its first weights."""
        super().init_weights()
        # FCNMaskHead's own start grows as classes get fewer, and its gradients then drown the box head's.
        nn.init.normal_(self.conv_logits.weight, std=0.001)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return mask logits (R, 28, 28) of RoI features (R, C, 14, 14), each of its RoI's class.

        Args:
            x: RoI features.
            labels: the classes, shape (R,).
        """
        for conv in self.convs:
            x = conv(x)  # (R, 256, 14, 14)
        x = self.spatial_attention(x)
        x = self.relu(self.upsample(x))  # (R, 256, 28, 28)
        # The 1×1 conv for one channel an RoI: of 1200 classes, all would take gigabytes.
        channels = labels + self.first_class
        weight, bias = self.conv_logits.weight[channels], self.conv_logits.bias[channels]
        return torch.bmm(weight.flatten(1)[:, None], x.flatten(2)).view(-1, *x.shape[2:]) + bias[:, None, None]
