"""Numbers of objects that stay."""

from fractions import Fraction

import numpy as np
import pytest

from centermask.video.tracking import Tracker


def test_moving_objects_keep_their_numbers() -> None:
    """Two boxes pass each other, one is missed in a few frames, and another is seen weakly; a weak one starts none."""
    pytest.importorskip('trackers', reason="trackers isn't installed: make programs")
    tracker = Tracker(Fraction(25), 0.5)
    ids = []
    for i in range(30):
        boxes = np.float32([[10 + 4 * i, 10, 50 + 4 * i, 50], [130 - 4 * i, 30, 170 - 4 * i, 75], [300, 0, 320, 20]])
        scores = np.float32([0.9, 0.3 if i in (15, 16) else 0.8, 0.4])
        seen = [0, 2] if i in (8, 9) else [1, 0, 2]
        found = dict(zip(seen, tracker.update(boxes[seen], scores[seen], i / 25).tolist(), strict=True))
        ids.append([found.get(j) for j in range(3)])
    assert {row[0] for row in ids[1:]} == {2} and {row[1] for row in ids[1:]} - {None} == {1}
    assert {row[2] for row in ids} == {-1}
    assert len(tracker.update(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 2.0)) == 0
