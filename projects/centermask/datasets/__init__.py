"""COCO data sets and their metric, the recipes' transforms, the check of a data set, and synthetic images."""

from centermask.datasets.coco import CenterMaskCocoDataset
from centermask.datasets.coco_annotations import read_classes
from centermask.datasets.coco_metric import CenterMaskCocoMetric
from centermask.datasets.coco_panoptic import read_panoptic_classes
from centermask.datasets.panoptic_dataset import CenterMaskPanopticDataset
from centermask.datasets.panoptic_metric import PanopticQuality
from centermask.datasets.semantic_metric import SemanticIoU
from centermask.datasets.transforms import LegacyBoxes, LegacyFlip, MaskBoxes, Resize

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'CenterMaskPanopticDataset',
    'LegacyBoxes',
    'LegacyFlip',
    'MaskBoxes',
    'PanopticQuality',
    'Resize',
    'SemanticIoU',
    'read_classes',
    'read_panoptic_classes',
]
