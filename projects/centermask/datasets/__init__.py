"""COCO data sets and their metric, the recipes' transforms, the check of a data set, and synthetic images."""

from centermask.datasets.coco import CenterMaskCocoDataset
from centermask.datasets.coco_annotations import read_classes
from centermask.datasets.coco_metric import CenterMaskCocoMetric
from centermask.datasets.transforms import FloorResize, LegacyBoxes, LegacyFlip, RoundResize

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'FloorResize',
    'LegacyBoxes',
    'LegacyFlip',
    'RoundResize',
    'read_classes',
]
