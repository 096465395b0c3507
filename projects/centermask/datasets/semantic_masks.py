"""Semantic PNGs, which the semantic head learns, made from panoptic ones: one byte a pixel.

0 is every thing, crowds too; 1 to S are the stuff categories by rising id; 255 has no label.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from centermask.datasets.coco_panoptic import PanopticAnnotations, write_png
from centermask.utils.errors import InputError

THING, UNLABELLED = 0, 255
# Images that a process is given at a time.
CHUNK = 50
_job: tuple[PanopticAnnotations, dict[int, int], Path]  # of a process of the pool


def semantic_labels(truth: PanopticAnnotations) -> dict[int, int]:
    """Return the semantic label of each category by its id.

    Raises:
        InputError: There are more stuff categories than a byte can tell apart.
    """
    if len(truth.stuff) >= UNLABELLED:
        raise InputError(
            f'The panoptic file {truth.path} has {len(truth.stuff)} stuff categories, and a semantic PNG holds at most '
            f'{UNLABELLED - 1}: merge some.'
        )
    labels = {category.id: THING for category in truth.things}
    return labels | {category.id: label for label, category in enumerate(truth.stuff, start=1)}


def semantic_map(numbers: np.ndarray, segments: Sequence[dict], labels: dict[int, int]) -> np.ndarray:
    """Return the semantic label of each pixel, uint8 (H, W).

    Args:
        numbers, segments: What :meth:`PanopticAnnotations.read` returned.
        labels: See :func:`semantic_labels`.
    """
    return np.array([UNLABELLED, *(labels[segment['category_id']] for segment in segments)], np.uint8)[numbers]


def semantic_path(truth: PanopticAnnotations, image_id: str, out: Path) -> Path:
    """Return where an image's semantic PNG goes: named like the image, which is how the data set finds it."""
    return out / Path(truth.images[image_id]['file_name']).with_suffix('.png')


def make_semantic_masks(ann_file: Path, folder: Path, out: Path, processes: int = 1) -> tuple[int, int]:
    """Write the semantic PNGs of a panoptic set; those that are newer than what they are made from stay.

    Args:
        ann_file: JSON file in COCO's panoptic format.
        folder: Folder of its PNGs.
        out: Folder to write to.
        processes: Number of processes.

    Returns:
        How many were written, and how many stayed.

    Raises:
        InputError: The set can't be used, see :class:`PanopticAnnotations`.
        RunError: A PNG can't be used or written.
    """
    truth = PanopticAnnotations(ann_file, folder)
    labels = semantic_labels(truth)
    if out.exists() and out.samefile(folder):
        raise InputError(f'{out} holds the panoptic PNGs, which the semantic ones would replace: name another folder.')
    outputs = {image_id: semantic_path(truth, image_id, out) for image_id in truth.image_ids()}
    path, images = Counter(outputs.values()).most_common(1)[0]
    if images > 1:
        raise InputError(f'{images} images of {ann_file} have the semantic PNG {path}: rename all but one of them.')
    changed = ann_file.stat().st_mtime
    todo = [
        image_id
        for image_id, path in outputs.items()
        if _modified(path) <= max(changed, _modified(truth.png(image_id)))
    ]
    progress = tqdm(total=len(todo), desc=f'Writing {out}', unit='image', disable=None)
    with progress, ProcessPoolExecutor(processes, initializer=_begin, initargs=(truth, labels, out)) as pool:
        chunks = [pool.submit(_convert, todo[first : first + CHUNK]) for first in range(0, len(todo), CHUNK)]
        try:
            for done in as_completed(chunks):
                progress.update(done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(todo), len(outputs) - len(todo)


def _modified(path: Path) -> float:
    """Return when a file was changed, -1 if there is none."""
    return path.stat().st_mtime if path.is_file() else -1


def _begin(truth: PanopticAnnotations, labels: dict[int, int], out: Path) -> None:
    """Keep in a process of the pool what all its images need, and leave Ctrl-C to the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    global _job
    _job = truth, labels, out


def _convert(image_ids: Sequence[str]) -> int:
    truth, labels, out = _job
    for image_id in image_ids:
        numbers, segments = truth.read(image_id)
        write_png(semantic_path(truth, image_id, out), semantic_map(numbers, segments, labels))
    return len(image_ids)
