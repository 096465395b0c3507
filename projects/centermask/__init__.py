"""CenterMask: real-time anchor-free instance segmentation on MMDetection.

Importing the package registers its parts in MMDetection's registries. :func:`load` gives a detector by its name.
"""

from . import checkpoints, datasets, engine
from .baselines.averaging_fpn import AveragingFPN
from .baselines.bipyramid_mask_head import BipyramidMaskHead
from .baselines.focal_loss_star import FocalLossStar
from .baselines.mobilenetv2 import MobileNetV2Features
from .baselines.retinamask import RetinaMaskBoxHead, SelfAdjustingSmoothL1Loss
from .baselines.shapemask import ShapeMask
from .baselines.shapemask_assigner import ShapeMaskAssigner
from .baselines.shapemask_box_coder import ShapeMaskBoxCoder
from .baselines.shapemask_box_head import ShapeMaskBoxHead
from .baselines.shapemask_fpn import ShapeMaskFPN
from .baselines.shapemask_resnet import ShapeMaskResNet
from .baselines.shapemask_roi_head import ShapeMaskRoIHead
from .baselines.tensormask import TensorMask
from .baselines.tensormask_box_head import TensorMaskBoxHead
from .baselines.window_assigner import WindowAssigner
from .boxes import LegacyBboxOverlaps2D
from .detector import CenterMask
from .engine.loading import load
from .fcos_head import CenterMaskFCOSHead
from .losses import SmoothedGIoULoss
from .mask_scoring_head import MaskScoringHead
from .panoptic_centermask import PanopticCenterMask
from .panoptic_fusion import PanopticFusion
from .roi_head import CenterMaskRoIHead
from .sag_mask_head import SAGMaskHead
from .scale_adaptive_roi_extractor import ScaleAdaptiveRoIExtractor
from .semantic_head import SemanticFPNHead
from .structures.visualizer import CenterMaskVisualizer
from .tta import CenterMaskTTA
from .vovnet import VoVNet

__all__ = [
    'AveragingFPN',
    'BipyramidMaskHead',
    'CenterMask',
    'CenterMaskFCOSHead',
    'CenterMaskRoIHead',
    'CenterMaskTTA',
    'CenterMaskVisualizer',
    'FocalLossStar',
    'LegacyBboxOverlaps2D',
    'MaskScoringHead',
    'MobileNetV2Features',
    'PanopticCenterMask',
    'PanopticFusion',
    'RetinaMaskBoxHead',
    'SAGMaskHead',
    'ScaleAdaptiveRoIExtractor',
    'SelfAdjustingSmoothL1Loss',
    'SemanticFPNHead',
    'ShapeMask',
    'ShapeMaskAssigner',
    'ShapeMaskBoxCoder',
    'ShapeMaskBoxHead',
    'ShapeMaskFPN',
    'ShapeMaskResNet',
    'ShapeMaskRoIHead',
    'SmoothedGIoULoss',
    'TensorMask',
    'TensorMaskBoxHead',
    'VoVNet',
    'WindowAssigner',
    'checkpoints',
    'datasets',
    'engine',
    'load',
]
