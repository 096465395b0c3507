"""CenterMask: real-time anchor-free instance segmentation on MMDetection.

Importing the package registers its parts in MMDetection's registries.
"""

from . import checkpoints, datasets, engine
from .detector import CenterMask
from .fcos_head import CenterMaskFCOSHead
from .giou_loss import SmoothedGIoULoss
from .inclusive_overlaps import InclusiveOverlaps2D
from .mask_scoring_head import MaskScoringHead
from .mobilenetv2 import MobileNetV2Features
from .retina_mask_box_head import RetinaMaskBoxHead
from .roi_head import CenterMaskRoIHead
from .sag_mask_head import SAGMaskHead
from .scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor
from .self_adjusting_smooth_l1_loss import SelfAdjustingSmoothL1Loss
from .tta import CenterMaskTTA
from .visualizer import CenterMaskVisualizer
from .vovnet import VoVNet

__all__ = [
    'CenterMask',
    'CenterMaskFCOSHead',
    'CenterMaskRoIHead',
    'CenterMaskTTA',
    'CenterMaskVisualizer',
    'InclusiveOverlaps2D',
    'MaskScoringHead',
    'MobileNetV2Features',
    'RetinaMaskBoxHead',
    'SAGMaskHead',
    'ScaleAdaptiveRoIExtractor',
    'SelfAdjustingSmoothL1Loss',
    'SmoothedGIoULoss',
    'VoVNet',
    'checkpoints',
    'datasets',
    'engine',
]
