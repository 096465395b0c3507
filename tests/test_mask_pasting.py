"""Pasting of masks of 28×28 cells: the pixels that they cover, against the releases' code."""

import subprocess
import sys

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from torch import Tensor

from centermask import mask_pasting
from centermask.mask_pasting import encode, paste

FULL = torch.ones(1, 28, 28)


def _paste(probabilities: Tensor, boxes: Tensor, image_size: tuple[int, int], threshold: float, how: str) -> Tensor:
    """Return pasted masks after checking that their RLEs are the same."""
    settings = (probabilities.numpy(), boxes.numpy(), image_size, threshold, how)
    masks = paste(*settings)
    rles = encode(*settings)
    assert masks.shape == rles.shape and masks.dtype == bool
    for mask, rle in zip(masks, rles, strict=True):
        assert rle == coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return torch.from_numpy(masks)


def _rows_and_columns(mask: Tensor) -> tuple[list[int], list[int]]:
    """Return first and last row, and first and last column, of a mask that must be a full rectangle."""
    rows, columns = mask.any(1).nonzero().squeeze(1).tolist(), mask.any(0).nonzero().squeeze(1).tolist()
    assert mask.sum().item() == len(rows) * len(columns)
    return [rows[0], rows[-1]], [columns[0], columns[-1]]


@pytest.mark.parametrize(
    'box, rows, columns',
    [
        ((2, 3, 6, 8), [3, 7], [2, 5]),
        ((2.4, 3, 6.6, 8), [3, 7], [2, 6]),  # the centre of a pixel decides
        ((2.6, 3, 6.4, 8), [3, 7], [3, 5]),
        ((2.5, 3, 6.5, 8), [3, 7], [2, 6]),  # half of the threshold's cell: just enough
        ((0, 0, 12, 10), [0, 9], [0, 11]),
        ((-4, -5, 4, 5), [0, 4], [0, 3]),  # what lies outside the image is cut
        ((8, 6, 20, 30), [6, 9], [8, 11]),
    ],
)
def test_sampled(box: tuple[float, ...], rows: list[int], columns: list[int]) -> None:
    masks = _paste(FULL, torch.tensor([box], dtype=torch.float32), (10, 12), 0.5, 'sampled')
    assert masks.shape == (1, 10, 12)
    assert _rows_and_columns(masks[0]) == (rows, columns)


@pytest.mark.parametrize(
    'box, rows, columns',
    [
        # With the margin of a cell: 1.86, 2.82, 6.14, 8.18, rounded down, the last pixel included.
        ((2, 3, 6, 8), [2, 8], [1, 6]),
        ((0, 0, 11, 9), [0, 9], [0, 11]),
        ((8, 6, 20, 30), [6, 9], [7, 11]),  # at 7.57, 5.14: row 5 holds less than half of the margin's cell
    ],
)
def test_resized(box: tuple[float, ...], rows: list[int], columns: list[int]) -> None:
    masks = _paste(FULL, torch.tensor([box], dtype=torch.float32), (10, 12), 0.5, 'resized')
    assert masks.shape == (1, 10, 12)
    assert _rows_and_columns(masks[0]) == (rows, columns)


def test_a_pixel_at_the_threshold() -> None:
    """A pixel at the threshold belongs to the object in the star recipe only."""
    half, box = FULL / 2, torch.tensor([[2.0, 3, 6, 8]])
    assert _paste(half, box, (10, 12), 0.5, 'sampled').any()
    assert not _paste(half, box, (10, 12), 0.5, 'resized').any()
    assert _paste(half, box, (10, 12), 0.49, 'resized').any()


@pytest.mark.parametrize('how', ['sampled', 'resized'])
def test_orientation(how: str) -> None:
    """A mask of the upper left quarter is pasted there."""
    quarter = torch.zeros(1, 28, 28)
    quarter[:, :14, :14] = 1
    mask = _paste(quarter, torch.tensor([[4.0, 6, 44, 66]]), (80, 50), 0.5, how)[0]
    assert mask[8:34, 6:22].all()
    assert not mask[40:].any() and not mask[:, 28:].any()


@pytest.mark.parametrize('how', ['sampled', 'resized'])
def test_several_masks(how: str) -> None:
    boxes = torch.tensor([[2.0, 2, 10, 10], [20, 20, 30, 40]])
    both = _paste(torch.stack([FULL[0], FULL[0] * 0.7]), boxes, (50, 50), 0.5, how)
    for mask, box in zip(both, boxes, strict=True):
        assert torch.equal(mask, _paste(FULL, box[None], (50, 50), 0.5, how)[0])


@pytest.mark.parametrize('how', ['sampled', 'resized'])
def test_no_masks(how: str) -> None:
    assert _paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 12), 0.5, how).shape == (0, 10, 12)


def test_resized_box_without_area() -> None:
    """A box without area covers one pixel at most."""
    assert _paste(FULL, torch.tensor([[3.2, 4.2, 3.2, 4.2]]), (10, 12), 0.5, 'resized').sum().item() <= 1


@pytest.mark.parametrize('how', ['sampled', 'resized'])
def test_box_outside_the_image(how: str) -> None:
    boxes = torch.tensor([[-20.0, 2, -10, 8], [3, 40, 8, 50], [-50, -50, -40, 60]])
    assert not _paste(FULL.repeat(3, 1, 1), boxes, (10, 12), 0.5, how).any()


def _by_torch(probability: Tensor, box: Tensor, image_size: tuple[int, int], how: str) -> Tensor:
    """Compute the pixels' probabilities as the release of the recipe does."""
    pixels = torch.zeros(image_size)
    if how == 'sampled':
        pasted, where = _do_paste_mask(probability[None, None], box[None], *image_size, skip_empty=True)
        pixels[where] = pasted[0]
        return pixels
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * 30 / 28
    (x1, y1), (x2, y2) = (centre - half).int().tolist(), (centre + half).int().tolist()
    size = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    resized = F.interpolate(F.pad(probability, (1, 1, 1, 1))[None, None], size, mode='bilinear')[0, 0]
    left, top = max(x1, 0), max(y1, 0)
    inside = resized[top - y1 :, left - x1 :][: image_size[0] - top, : image_size[1] - left]
    pixels[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return pixels


@pytest.mark.parametrize('how', ['sampled', 'resized'])
def test_equals_the_releases(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test boxes of all sizes, also beyond the edges, in several stripes; pixels at the threshold may differ."""
    monkeypatch.setattr(mask_pasting, 'STRIPE', 5000)
    generator = torch.Generator().manual_seed(0)
    image_size = (120, 161)
    probabilities = torch.rand(40, 28, 28, generator=generator)
    probabilities[20:] = F.avg_pool2d(probabilities[20:], 9, 1, 4)  # smooth ones
    corners = torch.rand(40, 2, generator=generator) * torch.tensor([170.0, 130]) - 20
    boxes = torch.cat([corners, corners + torch.rand(40, 2, generator=generator) ** 3 * 300 + 0.5], dim=1)
    boxes[:, 2:] = boxes[:, 2:].clamp(min=1)  # the reference fails left of the image
    boxes[-1] = torch.tensor([0.0, 0, 161, 120])
    boxes[-2] = torch.tensor([-10.0, -10, 180, 150])  # runs continue from column to column
    probabilities[-2] = 1
    masks = _paste(probabilities, boxes, image_size, 0.5, how)
    assert masks[-2].all()
    for mask, probability, box in zip(masks, probabilities, boxes, strict=True):
        expected = _by_torch(probability, box, image_size, how)
        different = mask != (expected >= 0.5 if how == 'sampled' else expected > 0.5)
        assert ((expected[different] - 0.5).abs() < 1e-4).all()


MEMORY = """
import resource
import numpy as np
from centermask.mask_pasting import encode
cells = np.random.default_rng(0).random((6, 28, 28), np.float32)
boxes = np.tile(np.float32([[0, 0, 6000, 4000]]), (6, 1))
encode(cells[:1], np.float32([[0, 0, 50, 50]]), (4000, 6000), 0.5, 'sampled')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
masks = encode(cells, boxes, (4000, 6000), 0.5, 'sampled')
assert len({rle['counts'] for rle in masks}) == 6
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory() -> None:
    """Encoding 6 masks of 24 megapixels takes less than the 144 MB of bool arrays."""
    done = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100
