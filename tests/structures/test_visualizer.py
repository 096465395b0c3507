"""Drawing of a few objects and of hundreds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks, bitmap_to_polygon
from mmengine.structures import InstanceData

from centermask import CenterMaskVisualizer
from centermask.mask_pasting import encode, paste
from centermask.structures.visualizer import MAX_LABELLED, distinct_colours

CLASSES = ('cat', 'dog', 'bird')


def _circles(number: int, size: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return masks (N, size, size) of circles on a grid, and their boxes (N, 4)."""
    across = int(np.ceil(number**0.5))
    masks = np.zeros((number, size, size), np.uint8)
    for i, mask in enumerate(masks):
        centre = [int((place + 0.5) * size / across) for place in (i % across, i // across)]
        cv2.circle(mask, centre, radius, 1, -1)
    corners = [cv2.boundingRect(mask) for mask in masks]
    return masks.astype(bool), np.float32([(x, y, x + w, y + h) for x, y, w, h in corners])


def _draw(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], masks: Any = None, classes: Any = CLASSES, **meta: Any
) -> np.ndarray:
    found = InstanceData(
        bboxes=torch.from_numpy(boxes),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    if masks is not None:
        found.masks = masks
    visualizer = CenterMaskVisualizer()
    visualizer.dataset_meta = dict(classes=classes, **meta)
    visualizer.add_datasample('', image, DetDataSample(pred_instances=found), draw_gt=False)
    return visualizer.get_image()


@pytest.mark.parametrize('number', [0, 3])
def test_all_forms_of_masks_look_alike(number: int) -> None:
    rng = np.random.default_rng(0)
    boxes = np.float32([[4, 6, 60, 50], [30, 20, 90, 70], [-5, -5, 20, 100]])[:number]
    cells = np.ones((number, 28, 28), np.float32)
    image = rng.integers(0, 256, (80, 100, 3), np.uint8)
    pasted = paste(cells, boxes, (80, 100), 0.5, 'sampled')
    images = [
        _draw(image, boxes, [2, 0, 1][:number], masks)
        for masks in (
            torch.from_numpy(pasted),
            pasted,
            BitmapMasks(pasted.astype(np.uint8), 80, 100),
            encode(cells, boxes, (80, 100), 0.5, 'sampled'),
            PolygonMasks([[part.ravel() for part in bitmap_to_polygon(mask)[0]] for mask in pasted], 80, 100),
        )
    ]
    for drawn in images[1:4]:
        np.testing.assert_array_equal(drawn, images[0])
    assert (np.abs(images[4].astype(int) - images[0]).max(-1) > 60).mean() < 0.03, 'outlines are half a pixel apart'
    plain = _draw(image, boxes[:0], [])
    assert plain.shape == (512, 640, 3)
    assert (np.abs(images[0][:, :640].astype(int) - plain).max() > 50) == (number > 0)


@pytest.mark.parametrize(
    ('size', 'drawn'), [((96, 72), (640, 480)), ((700, 500), (700, 500)), ((60, 4000), (24, 1600))]
)
def test_size_of_the_image(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    assert _draw(image, np.zeros((0, 4), np.float32), []).shape[:2] == drawn


def test_few_objects_are_labelled() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    masks, boxes = _circles(4, 640, 60)
    drawn = _draw(image, boxes, [0, 1, 2, 0], masks)
    assert drawn.shape == image.shape, 'no legend'
    for (x1, y1, *_), label in zip(boxes.astype(int), [0, 1, 2, 0], strict=True):
        above = drawn[y1 - 10, x1 : x1 + 20]
        assert (above == distinct_colours(3)[label]).all(-1).any(), 'the label is filled with the colour of the class'


@pytest.mark.parametrize('classes', [('cell',), CLASSES])
def test_a_dense_image_has_a_legend_instead_of_labels(classes: tuple[str, ...]) -> None:
    """Beside the masks, no pixel of the image changes: there are neither labels nor boxes."""
    number = 400
    image = np.full((640, 640, 3), 90, np.uint8)
    masks, boxes = _circles(number, 640, 10)
    drawn = _draw(image, boxes, [i % len(classes) for i in range(number)], masks, classes)
    picture, legend = drawn[:, :640], drawn[:, 640:]
    np.testing.assert_array_equal((picture != 90).any(-1), masks.any(0))
    assert (legend == 255).all(-1).mean() > 0.5 and (legend < 60).any(), 'black text on white'
    swatches = [colour for colour in distinct_colours(3) if (legend == colour).all(-1).sum() > 50]
    assert len(swatches) == (3 if len(classes) == 3 else 0)


def test_outlines_are_a_pixel_or_two_wide() -> None:
    for radius, width in ((15, 1), (50, 2)):
        masks, boxes = _circles(MAX_LABELLED + 1 if width == 1 else 4, 640, radius)
        drawn = _draw(np.zeros((640, 640, 3), np.uint8), boxes, [0] * len(boxes), masks)
        for x1, y1, x2, y2 in boxes.astype(int):
            row = drawn[(y1 + y2) // 2, x1 : (x1 + x2) // 2]
            assert (row == distinct_colours(3)[0]).all(-1).sum() == width


@pytest.mark.parametrize(('classes', 'number'), [(('cell',), 9), (CLASSES, 1)])
def test_one_class_has_a_colour_an_object(classes: tuple[str, ...], number: int) -> None:
    masks, boxes = _circles(9, 640, 60)
    drawn = _draw(np.zeros((640, 640, 3), np.uint8), boxes, [0] * 9, masks, classes)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int)
    assert len({tuple(drawn[y, x]) for x, y in centres}) == number


def test_own_palette() -> None:
    """The colours of the data set are used; too few of them aren't, nor COCO's for other classes."""
    masks, boxes = _circles(1, 640, 100)
    for palette, colour in (
        ([(9, 8, 7)] * 3, (9, 8, 7)),
        ([(9, 8, 7)], distinct_colours(3)[2]),
        ('random', distinct_colours(3)[2]),
    ):
        drawn = _draw(np.zeros((640, 640, 3), np.uint8), boxes, [2], masks, palette=palette)
        assert (drawn == colour).all(-1).any()


def test_colours_differ() -> None:
    colours = distinct_colours(400)
    assert len(set(colours)) == 400
    first = np.array(colours[:30], float)
    distances = np.linalg.norm(first[:, None] - first, axis=-1) + 1e3 * np.eye(30)
    assert distances.min() > 60


def test_boxes_without_masks_and_more_labels_than_names() -> None:
    boxes = np.float32([[10, 20, 100, 90], [np.nan, 0, 50, np.inf], [300, 300, 300, 300]])
    drawn = _draw(np.zeros((640, 640, 3), np.uint8), boxes, [0, 5, 1])
    edge = drawn[20:90, 10]
    assert (edge == edge[0]).all() and edge[0].any(), 'the left side of the first box'


def test_ground_truth_beside_predictions(tmp_path: Path) -> None:
    masks, boxes = _circles(4, 640, 60)
    truth = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.zeros(4, dtype=torch.long), masks=masks)
    found = InstanceData(**truth, scores=torch.tensor([0.9, 0.8, 0.7, 0.1]))
    visualizer = CenterMaskVisualizer()
    visualizer.dataset_meta = dict(classes=CLASSES)
    sample = DetDataSample(gt_instances=truth, pred_instances=found)
    visualizer.add_datasample('', np.zeros((640, 640, 3), np.uint8), sample, out_file=str(tmp_path / 'a' / 'b.png'))
    drawn = cv2.imread(str(tmp_path / 'a' / 'b.png'))
    assert drawn.shape == (640, 640 + 8 + 640, 3)
    assert (drawn[:, 640:648] == 255).all()
    last = [drawn[480, x].any() for x in (480, 648 + 480)]
    assert last == [True, False], 'the fourth is under the threshold'


@pytest.mark.parametrize('key', ['gt_instances', 'pred_instances'])
def test_images_without_ground_truth_or_predictions(key: str) -> None:
    """The plain image is beside the drawn one; a pipeline without annotations leaves empty ground truth."""
    masks, boxes = _circles(4, 100, 10)
    drawn = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.zeros(4, dtype=torch.long), masks=masks)
    if key == 'pred_instances':
        drawn.scores = torch.ones(4)
    visualizer = CenterMaskVisualizer()
    visualizer.dataset_meta = dict(classes=CLASSES)
    for others in ({}, dict(gt_instances=InstanceData()) if key == 'pred_instances' else {}):
        visualizer.add_datasample('', np.zeros((100, 100, 3), np.uint8), DetDataSample(**others, **{key: drawn}))
        assert visualizer.get_image().shape[0] == 640 and visualizer.get_image().shape[1] >= 2 * 640
