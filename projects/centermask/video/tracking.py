"""One number for an object in all frames that it is in, by the ByteTrack of the package ``trackers``."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


class Tracker:
    """ByteTrack: boxes of consecutive frames belong together by their overlap and motion.

    Detections under the threshold continue tracks and start none.

    Args:
        rate: frames a second.
        score_thr: the least score of a detection that starts a track.
    """

    def __init__(self, rate: Fraction, score_thr: float) -> None:
        from supervision import Detections  # slow to import
        from trackers import ByteTrackTracker

        self._detections = Detections
        self._tracker: Any = ByteTrackTracker(
            frame_rate=float(rate),
            track_activation_threshold=score_thr,
            high_conf_det_threshold=score_thr,
        )

    def update(self, boxes: np.ndarray, scores: np.ndarray, seconds: float) -> np.ndarray:
        """Return the track's number, from 1, of each detection of the next frame, (N,); −1 for those of no track.

        An object has its number from its second frame on.

        Args:
            boxes: (N, 4), x1, y1, x2, y2 in pixels.
            scores: (N,).
            seconds: time of the frame.
        """
        found = self._detections(xyxy=boxes, confidence=scores, data={'index': np.arange(len(boxes))})
        tracked = self._tracker.update(found, timestamp=seconds)
        ids = np.full(len(boxes), -1)
        if len(tracked):
            ids[tracked.data['index']] = tracked.tracker_id
        return np.where(ids < 0, -1, ids + 1)
