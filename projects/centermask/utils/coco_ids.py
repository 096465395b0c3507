"""COCO's ids of its categories, by label."""

from collections.abc import Sequence

from mmdet.datasets import CocoDataset

_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
THING_IDS = tuple(number for number in range(1, 91) if number not in _UNUSED)  # of 80
STUFF_IDS = (  # of 53
    92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154, 155,
    156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201),
)  # fmt: skip


def category_ids(classes: Sequence[str]) -> list[int]:
    """Return ids of classes that no annotation file has: COCO's own for its 80, else numbers from 1."""
    return [*THING_IDS] if tuple(classes) == CocoDataset.METAINFO['classes'] else [*range(1, len(classes) + 1)]
