"""Panoptic maps drawn: every segment in its class's colour, labels or a legend, ground truth as predictions."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData

from centermask import CenterMaskVisualizer
from centermask.structures.panoptic_drawing import panoptic_truth
from centermask.structures.visualizer import MAX_LABELLED, distinct_colours

THINGS, STUFF = ('cat', 'dog'), ('grass', 'sky')
GRASS, SKY, VOID = 2, 3, 4


def _draw(panoptic: np.ndarray, image: np.ndarray, **others: Any) -> np.ndarray:
    visualizer = CenterMaskVisualizer()
    visualizer.dataset_meta = dict(classes=THINGS, stuff_classes=STUFF)
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.from_numpy(panoptic)[None]), **others)
    visualizer.add_datasample('', image, sample, draw_gt=bool(others))
    return visualizer.get_image()


def _halves(size: int = 640) -> np.ndarray:
    panoptic = np.full((size, size), GRASS)
    panoptic[: size // 2] = SKY
    return panoptic


def test_segments_have_their_class_colours() -> None:
    panoptic = _halves()
    panoptic[100:300, 100:300] = 0 + INSTANCE_OFFSET
    panoptic[100:300, 300:500] = 0 + 2 * INSTANCE_OFFSET
    panoptic[500:, 500:] = VOID
    drawn = _draw(panoptic, np.zeros((640, 640, 3), np.uint8))
    assert drawn.shape == (640, 640, 3), 'five segments have labels and no legend'
    colours = np.array(distinct_colours(4)) // 2
    for (y, x), label in {(110, 110): 0, (110, 490): 0, (20, 20): SKY, (620, 20): GRASS}.items():
        np.testing.assert_allclose(drawn[y, x], colours[label], atol=1)
    assert (drawn[200, 299] == 255).all(), 'two objects of one class have a border'
    assert not drawn[501:, 501:].any(), 'void is the image'


@pytest.mark.parametrize('number', [MAX_LABELLED - 2, MAX_LABELLED + 1])
def test_legend(number: int) -> None:
    """Many segments, or some without room for a label, have a legend; with many there are no labels."""
    panoptic = _halves()
    for i in range(number):
        y, x = 30 + 90 * (i // 7), 30 + 90 * (i % 7)
        panoptic[y : y + 10, x : x + 10] = i % 2 + INSTANCE_OFFSET * (i + 1)
    drawn = _draw(panoptic, np.zeros((640, 640, 3), np.uint8))
    picture, legend = drawn[:, :640], drawn[:, 640:]
    assert (legend == 255).all(-1).mean() > 0.5
    assert all((legend == colour).all(-1).sum() > 50 for colour in distinct_colours(4))
    labelled = [(picture == distinct_colours(4)[label]).all(-1).any() for label in (GRASS, SKY)]
    assert labelled == [number < MAX_LABELLED] * 2


def test_ground_truth_is_drawn_like_predictions(tmp_path: Path) -> None:
    masks = np.zeros((2, 320, 320), np.uint8)
    cv2.circle(masks[0], (80, 80), 60, 1, -1)
    cv2.circle(masks[1], (100, 80), 20, 1, -1)  # on the first one
    semantic = np.where(np.arange(320)[:, None] < 160, 2, 1) * np.ones((1, 320), int)
    semantic[-20:] = 255
    truth = InstanceData(labels=torch.tensor([1, 0]), masks=BitmapMasks(masks, 320, 320), bboxes=torch.zeros(2, 4))
    panoptic = panoptic_truth(truth, semantic, 2, 2)
    assert panoptic[80, 100] == 0 + 2 * INSTANCE_OFFSET and panoptic[80, 60] == 1 + INSTANCE_OFFSET
    assert [*panoptic[[0, 200, 310], 0]] == [SKY, GRASS, VOID]
    found = InstanceData(bboxes=torch.zeros(1, 4), labels=torch.zeros(1).long(), scores=torch.ones(1))
    others = dict(gt_instances=truth, gt_sem_seg=PixelData(sem_seg=torch.from_numpy(semantic)[None]))
    image = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)
    drawn = _draw(panoptic, image, pred_instances=found, **others)
    assert drawn.shape == (640, 640 + 8 + 640, 3)
    np.testing.assert_array_equal(drawn[:, :640], drawn[:, 648:])


def test_ground_truth_of_polygons_and_of_nothing() -> None:
    square = [np.array([2.0, 2, 8, 2, 8, 8, 2, 8])]
    truth = InstanceData(labels=torch.tensor([1]), masks=PolygonMasks([square], 10, 10))
    panoptic = panoptic_truth(truth, np.ones((10, 10), np.uint8), 2, 2)
    assert {*panoptic[3:7, 3:7].ravel()} == {1 + INSTANCE_OFFSET} and panoptic[0, 0] == GRASS
    empty = InstanceData(labels=torch.zeros(0).long(), masks=PolygonMasks([], 10, 10))
    assert (panoptic_truth(empty, np.full((10, 10), 255, np.uint8), 2, 2) == VOID).all()


def test_without_names_of_stuff_objects_are_drawn() -> None:
    """As by MMDetection's inferencer with a checkpoint that has weights alone."""
    found = InstanceData(bboxes=torch.tensor([[20.0, 30, 200, 100]]), labels=torch.tensor([1]), scores=torch.ones(1))
    maps = dict(
        pred_panoptic_seg=PixelData(sem_seg=torch.full((1, 320, 320), SKY)),
        pred_sem_seg=PixelData(sem_seg=torch.ones(1, 320, 320).long()),
    )
    images = []
    for others in ({}, maps):
        visualizer = CenterMaskVisualizer()
        visualizer.dataset_meta = dict(classes=THINGS)
        sample = DetDataSample(pred_instances=found, **others)
        visualizer.add_datasample('', np.full((320, 320, 3), 90, np.uint8), sample, draw_gt=False)
        images.append(visualizer.get_image())
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize('size', [(1, 1), (1, 400)])
def test_void_alone_and_tiny_images(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    assert (_draw(np.full(size, VOID), image) == 90).all()
    assert _draw(np.full(size, SKY), image).shape[1] >= 640
