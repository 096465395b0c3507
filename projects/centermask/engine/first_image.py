"""Take a data set's first image through its pipeline before a run: many a wrong value shows at an image only."""

from __future__ import annotations

import copy
import traceback
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, Compose

from centermask.engine.randomness import seeded
from centermask.utils.errors import InputError, find_user_error


def check_pipeline(dataset: Any, place: str, source: str | None) -> None:
    """Load the first image of a data set; neither its transforms nor random numbers are changed by that.

    Args:
        dataset: one that combines others isn't looked at.
        place: of its config, such as ``'train_dataloader.dataset'``.
        source: the config's file.

    Raises:
        InputError: a transform can't do what it is told to, or the last of them doesn't give what a detector takes.
        RunError: the image can't be used.
    """
    if not isinstance(dataset, BaseDataset) or not isinstance(dataset.pipeline, Compose):
        return
    probe = copy.copy(dataset)
    probe.pipeline = copy.deepcopy(dataset.pipeline)  # some remember images
    where = f'The {place}.pipeline of {source or "the config"}'
    try:
        with seeded(0):
            sample = probe[0]
    except Exception as error:
        if known := find_user_error(error):
            raise known from error
        owners = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = [type(owner).__name__ for owner in owners if isinstance(owner, BaseTransform)]
        why = f'{type(error).__name__}: {" ".join(str(error).split())}'.rstrip('.')
        by = f'{names[-1]} fails at' if names else 'it fails at'
        raise InputError(f'{where} is wrong, {by} the first image with {why}.') from error
    if not (isinstance(sample, dict) and {'inputs', 'data_samples'} <= {*sample}):
        raise InputError(f'{where} gives no inputs and data_samples for the model: end it with PackDetInputs.')
