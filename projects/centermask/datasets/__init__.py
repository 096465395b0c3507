"""COCO data sets and their metric, the recipes' transforms, the check of a data set, and synthetic images."""

from centermask.datasets.coco import CenterMaskCocoDataset
from centermask.datasets.coco_annotations import read_classes
from centermask.datasets.coco_metric import CenterMaskCocoMetric
from centermask.datasets.transforms import LegacyBoxes, LegacyFlip, MaskBoxes, Resize

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'LegacyBoxes',
    'LegacyFlip',
    'MaskBoxes',
    'Resize',
    'read_classes',
]
