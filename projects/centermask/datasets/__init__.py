"""Data sets in COCO's format and their metric, the paper recipe's transforms, and the demo's shapes."""

from .coco import CenterMaskCocoDataset, read_classes
from .coco_metric import CenterMaskCocoMetric
from .transforms import FloorResize, InclusiveBoxes, InclusiveFlip

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'FloorResize',
    'InclusiveBoxes',
    'InclusiveFlip',
    'read_classes',
]
