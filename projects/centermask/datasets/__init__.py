"""Data sets in COCO's format and their metric, the recipes' transforms, and the demo's shapes."""

from .annotations import read_classes
from .coco import CenterMaskCocoDataset
from .coco_metric import CenterMaskCocoMetric
from .transforms import FloorResize, InclusiveBoxes, InclusiveFlip, RoundResize

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'FloorResize',
    'InclusiveBoxes',
    'InclusiveFlip',
    'RoundResize',
    'read_classes',
]
