"""Detections by frame as a file of COCO results, written while they are made."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from centermask.utils.atomic_io import aside_of
from centermask.utils.coco_ids import category_ids
from centermask.utils.errors import RunError


class FrameResults:
    """A file of ``images``, which are the frames, ``categories`` and ``annotations``; it appears when the block ends
    with a frame.

    The id of an image is the frame's number, from 0. An annotation has ``bbox`` (x, y, width, height), ``score``,
    ``segmentation`` (RLE), ``mask_score`` and, where objects are tracked, ``track_id``. ``COCO(FILE)`` reads it.

    Args:
        path: of the file.
        classes: names, by label.

    Raises:
        RunError: it can't be written.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.path, self._aside = path, aside_of(path)
        self._categories = [{'id': i, 'name': name} for i, name in zip(category_ids(classes), classes, strict=True)]
        self._count = 0

    def __enter__(self) -> FrameResults:
        try:
            self._frames = tempfile.TemporaryFile('w+', dir=self.path.parent)  # in memory they would add up
            self._file = open(self._aside, 'w', encoding='utf-8')
            self._file.write('{"annotations": [')
        except OSError as error:
            raise self._failed(error) from error
        return self

    def add(self, number: int, seconds: float, size: tuple[int, int], found: dict[str, Any]) -> None:
        """Write the detections of a frame.

        Args:
            number: of the frame.
            seconds: time of the frame.
            size: height and width in pixels.
            found: ``labels``, ``scores``, ``bboxes`` (x1, y1, x2, y2), and where there are any ``masks`` (RLE),
                ``mask_scores`` and ``track_ids`` (−1: none).
        """
        frame = {'id': number, 'height': size[0], 'width': size[1], 'seconds': round(seconds, 4)}
        lines = []
        for i, label in enumerate(found['labels']):
            x1, y1, x2, y2 = found['bboxes'][i]
            self._count += 1
            entry = {
                'id': self._count,
                'image_id': number,
                'category_id': self._categories[label]['id'],
                'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                'score': round(found['scores'][i], 5),
            }
            if 'masks' in found:
                entry['segmentation'] = found['masks'][i]
            if 'mask_scores' in found:
                entry['mask_score'] = round(found['mask_scores'][i], 5)
            if 'track_ids' in found and found['track_ids'][i] >= 0:
                entry['track_id'] = found['track_ids'][i]
            lines.append(f'{"," if self._count > 1 else ""}\n{json.dumps(entry)}')
        try:
            self._file.write(''.join(lines))
            self._frames.write(f'{"," if self._frames.tell() else ""}\n{json.dumps(frame)}')
            self._file.flush()  # for what reads along, and in case the process is killed
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path} can't be written ({error.strerror}): make room there or name another place by --out-dir."
        )

    def __exit__(self, *_: object) -> None:
        try:
            with self._frames, self._file:
                if not self._frames.tell():
                    return
                categories = json.dumps(self._categories, ensure_ascii=False)
                self._file.write(f'\n],\n"categories": {categories},\n"images": [')
                self._frames.seek(0)
                shutil.copyfileobj(self._frames, self._file)
                self._file.write('\n]}\n')
            os.replace(self._aside, self.path)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            with suppress(OSError):
                self._aside.unlink()
