"""CenterMask: real-time anchor-free instance segmentation on MMDetection.

Importing the package registers its parts in MMDetection's registries.
"""

from .detector import CenterMask
from .fcos_head import CenterMaskFCOSHead
from .giou_loss import SmoothedGIoULoss
from .mask_scoring_head import MaskScoringHead
from .roi_head import CenterMaskRoIHead
from .sag_mask_head import SAGMaskHead
from .scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor
from .vovnet import VoVNet

__all__ = [
    'CenterMask',
    'CenterMaskFCOSHead',
    'CenterMaskRoIHead',
    'MaskScoringHead',
    'SAGMaskHead',
    'ScaleAdaptiveRoIExtractor',
    'SmoothedGIoULoss',
    'VoVNet',
]
