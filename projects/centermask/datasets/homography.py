"""How the steps of a pipeline map the original image to its input, which not all of them note as ``scale_factor``."""

from __future__ import annotations

import inspect
from typing import Any

from mmdet.datasets.transforms import PackDetInputs

META_KEYS = inspect.signature(PackDetInputs).parameters['meta_keys'].default


def with_homography(config: Any) -> Any:
    """Return a config in which every ``PackDetInputs`` packs ``homography_matrix``, the product of all steps.

    Args:
        config: of a data loader, a data set or a pipeline.
    """
    if isinstance(config, list | tuple):
        return type(config)([with_homography(entry) for entry in config])
    if not isinstance(config, dict):
        return config
    copied = type(config)({key: with_homography(value) for key, value in config.items()})
    if config.get('type') in ('PackDetInputs', 'mmdet.PackDetInputs', PackDetInputs):
        copied['meta_keys'] = (*config.get('meta_keys', META_KEYS), 'homography_matrix')
    return copied
