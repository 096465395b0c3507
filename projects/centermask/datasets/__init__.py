"""Data sets in COCO's format and their metric, the recipes' transforms, and the demo's shapes."""

from centermask.annotations import read_classes
from centermask.coco import CenterMaskCocoDataset
from centermask.coco_metric import CenterMaskCocoMetric
from centermask.transforms import FloorResize, InclusiveBoxes, InclusiveFlip, RoundResize

__all__ = [
    'CenterMaskCocoDataset',
    'CenterMaskCocoMetric',
    'FloorResize',
    'InclusiveBoxes',
    'InclusiveFlip',
    'RoundResize',
    'read_classes',
]
