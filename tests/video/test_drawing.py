"""Detections on frames."""

import cv2
import numpy as np
import pytest
from mmengine.structures import InstanceData

from centermask.mask_pasting import encode
from centermask.structures.visualizer import MAX_LABELLED
from centermask.video.drawing import FrameDrawing

META = {'classes': ('cat', 'dog'), 'palette': 'random'}


def _found(number: int, label: int = 0, left: int = 0) -> InstanceData:
    """Return a row of objects of 24×24 pixels, the last of them with a low score."""
    across = 12
    corners = np.float32([(40 * (i % across) + left, 40 * (i // across) + 30) for i in range(number)])
    boxes = np.concatenate([corners, corners + 24], 1)
    masks = encode(np.ones((number, 28, 28), np.float32), boxes, (360, 640), 0.5, 'sampled')
    scores = np.full(number, 0.9, np.float32)
    scores[-1] = 0.1
    return InstanceData(bboxes=boxes, scores=scores, labels=np.full(number, label), masks=masks)


@pytest.fixture
def image() -> np.ndarray:
    return np.full((360, 640, 3), (10, 60, 120), np.uint8)  # BGR


def test_what_is_drawn(image: np.ndarray) -> None:
    before = image.copy()
    drawn = FrameDrawing(META, 0.3).objects(image, _found(3))
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    changed = (drawn != rgb).any(-1)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape
    assert changed[35:50, 5:20].all() and changed[35:50, 45:60].all() and not changed[35:50, 85:100].any()
    assert FrameDrawing(META, 0.95).objects(image, _found(3)).tolist() == rgb.tolist()


def test_many_objects_have_masks_alone(image: np.ndarray) -> None:
    found = _found(MAX_LABELLED + 2)
    changed = (FrameDrawing(META, 0.3).objects(image, found) != image[..., ::-1]).any(-1)
    np.testing.assert_array_equal(changed, found.masks.astype(bool)[:-1].any(0))


def test_colours_stay(image: np.ndarray) -> None:
    """The colour is the class's, also where the order changes, or the track's."""
    drawing = FrameDrawing(META, 0.3)

    def edge(label: int, left: int, tracks: list[int] | None = None) -> list[int]:
        found = _found(2, label, left)
        return drawing.objects(image, found, None if tracks is None else np.array(tracks))[40, left].tolist()

    assert edge(0, 100) == edge(0, 200) != edge(1, 100)
    assert edge(0, 100, [7, -1]) == edge(1, 300, [7, -1]) != edge(0, 100, [8, -1])
    assert edge(0, 100, [-1, -1]) == edge(0, 100)
