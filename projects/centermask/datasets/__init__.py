"""Data sets in COCO's format, the transforms of the two recipes, and the demo's shapes."""

from centermask.datasets.transforms import FloorResize, InclusiveBoxes, InclusiveFlip

__all__ = ['FloorResize', 'InclusiveBoxes', 'InclusiveFlip']
