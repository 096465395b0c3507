"""The page's folder: its own files beside the model and ONNX Runtime for browsers."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config

from centermask.datasets.images import MAX_PIXELS
from centermask.export.metadata import Metadata, resize_rule
from centermask.utils.coco_ids import category_ids
from centermask.utils.errors import InputError

PAGE = Path(__file__).parent / 'page'
MODEL = 'model.onnx'
DESCRIPTION = 'model.json'


def is_site(folder: Path) -> bool:
    """Return whether a folder was written by :func:`write_page`."""
    return all((folder / name).is_file() for name in (DESCRIPTION, 'detector.js'))


def require_page_resizing(cfg: Config) -> None:
    """Raise an :class:`InputError` unless the page can resize pictures as a config's test pipeline does."""
    steps = [step for step in cfg.test_dataloader.dataset.pipeline if step.get('scale') is not None]
    for step in steps:
        ours = resize_rule(step).split()[0] == 'centermask.Resize' and step.get('backend', 'pillow') == 'pillow'
        if not ours or len(steps) > 1:
            raise InputError(
                f'The test pipeline of {cfg.filename} resizes otherwise than by one centermask.Resize with '
                "backend='pillow', the only rule that the page has: export with --format onnx, or train with that one."
            )


def write_page(folder: Path, metadata: Metadata) -> None:
    """Write the page's own files into a new folder, with what it has to know of the model.

    Args:
        folder: an empty one; the model is still to be put there, as ``MODEL``.
        metadata: of the model, which is exported with ``preprocess``.
    """
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    description = {
        **asdict(metadata),
        'file': MODEL,
        'category_ids': category_ids(metadata.classes),
        'max_pixels': MAX_PIXELS,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, ensure_ascii=False), encoding='utf-8')
