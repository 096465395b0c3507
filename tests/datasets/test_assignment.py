"""Objects that FCOS learns at a config's image sizes, and the sizes at which it would learn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from centermask.datasets.assignment import Assignment, scale_for

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture(scope='module')
def assignment() -> Assignment:
    return Assignment(Config.fromfile(CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py'))


@pytest.mark.parametrize('center_sampling', [True, False])
def test_locations_near_the_centres_decide(assignment: Assignment, center_sampling: bool) -> None:
    """The same objects are learned as on all locations of the maps."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 300, (200, 2))
    boxes = torch.tensor(np.hstack([corners, corners + rng.exponential([12, 25], (200, 2))])).float()
    head = assignment._head
    head.center_sampling = center_sampling
    try:
        learned = assignment._learned_at(boxes, (300, 260))
        points = head.prior_generator.grid_priors([(36, 40), (18, 20), (9, 10), (5, 5), (3, 3)], device='cpu')
        labels, _ = head.get_targets(points, [InstanceData(bboxes=boxes, labels=torch.arange(200) + 2)])
    finally:
        head.center_sampling = True
    expected = np.isin(np.arange(200) + 2, torch.cat(labels))
    assert 20 < expected.sum() < 180
    np.testing.assert_array_equal(learned, expected)


def grid(side: float, step: int) -> tuple[np.ndarray, int, int]:
    """Squares on an image of 500 x 300, 0.3 pixels off a grid."""
    x, y = np.meshgrid(np.arange(4.3, 490, step), np.arange(4.3, 290, step))
    corners = np.stack([x, y], axis=-1).reshape(-1, 2)
    return np.hstack([corners, corners + side]), 500, 300


def test_the_recipe_s_size_stays_where_it_does(assignment: Assignment) -> None:
    proposal = scale_for(assignment, [grid(20, 50)])
    assert (proposal.factor, proposal.scale, proposal.lost) == (1, (1000, 600), 0)
    assert scale_for(assignment, []).factor == 1


@pytest.mark.parametrize(('side', 'factor'), [(3, 1.25), (2.1, 2), (0.95, 4)])
def test_small_objects_need_larger_images(assignment: Assignment, side: float, factor: float) -> None:
    """A location lies within any box as wide and high as the stride of P3, 8 pixels; the images are doubled already."""
    proposal = scale_for(assignment, [grid(side, 21)] * 2)
    assert proposal.factor == factor and proposal.scale == (1000 * factor, 600 * factor)
    assert proposal.lost <= 0.01 < 1 - assignment.learned(*grid(side, 21)).mean()


def test_objects_that_no_size_keeps(assignment: Assignment) -> None:
    """Of two objects with the same box one is lost at any size, so the size stays."""
    boxes, *size = grid(20, 50)
    proposal = scale_for(assignment, [(np.vstack([boxes, boxes]), *size)])
    assert (proposal.factor, proposal.lost) == (1, 0.5)
