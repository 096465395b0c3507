"""Data sets in COCO's format and their metric, the recipes' transforms, and the demo's shapes."""

from centermask.datasets.annotations import read_classes
from centermask.datasets.coco import CenterMaskCocoDataset
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
