"""Which windows learn an object: containment, scale, centrality, uniqueness."""

from collections.abc import Sequence

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from centermask import WindowAssigner

# Windows of 44 and 60 pixels of stride 4, of 88 and 120 of stride 8, all centred at (100, 100).
SIDES, STRIDES = (44, 60, 88, 120), (4, 4, 8, 8)


def _box(width: float, height: float, x: float = 100, y: float = 100) -> tuple[float, ...]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _assign(*boxes: tuple[float, ...], windows: Sequence[tuple] = tuple(_box(side, side) for side in SIDES)) -> Tensor:
    priors = InstanceData(priors=torch.tensor(windows), strides=torch.tensor(STRIDES, dtype=torch.float))
    labels = torch.arange(len(boxes)) + 7
    objects = InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4), labels=labels)
    result = WindowAssigner().assign(priors, objects)
    assert result.num_gts == len(boxes)
    expected = [7 + i - 1 if i else -1 for i in result.gt_inds.tolist()]
    assert result.labels.tolist() == expected
    return result.gt_inds.tolist()


@pytest.mark.parametrize(
    ('box', 'assigned'),
    [
        (_box(44, 44), [1, 1, 1, 0]),  # fills the smallest; 60 - 4 and 88 - 8 are at most 2 · 44, 120 - 8 isn't
        (_box(45, 10), [0, 1, 1, 0]),  # the longer side counts
        (_box(28, 27.9), [1, 1, 0, 0]),  # 60 - 4 = 2 · 28
        (_box(27.9, 27.9), [1, 0, 0, 0]),
        (_box(1, 1), [1, 0, 0, 0]),  # the smallest window takes whatever is smaller
        (_box(40, 40, 102), [1, 1, 1, 0]),  # touches a side
        (_box(40, 40, 102.1), [0, 1, 1, 0]),
        (_box(30, 30, 104), [1, 1, 0, 0]),  # centres one stride apart
        (_box(30, 30, 103, 103), [0, 0, 0, 0]),  # 3 √2 pixels
        (_box(50, 50, 105), [0, 0, 1, 0]),  # within a stride of 8 pixels
        (_box(121, 10), [0, 0, 0, 0]),
        (_box(30, 0), [0, 0, 0, 0]),  # has no deltas
    ],
)
def test_rules(box: tuple[float, ...], assigned: list[int]) -> None:
    assert _assign(box) == assigned


def test_contested_windows_are_background() -> None:
    """The second object claims 44 alone, the first 44 and 60."""
    assert _assign(_box(40, 40), _box(10, 10)) == [0, 1, 1, 0]
    assert _assign(_box(40, 40), _box(40, 40)) == [0, 0, 0, 0]
    assert _assign(_box(10, 10), _box(100, 100, 101)) == [1, 0, 0, 2]


def test_no_objects() -> None:
    assert _assign() == [0, 0, 0, 0]
