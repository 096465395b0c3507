"""Convert a released checkpoint to MMDetection's layout, with every tensor accounted for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from centermask.checkpoints.layouts import RECIPES, Translation, from_release
from centermask.checkpoints.loading import KeyMismatch, add_bn_statistics, find_mismatches, shortened
from centermask.checkpoints.reading import Contents
from centermask.utils.errors import InputError


class Conversion(NamedTuple):
    """A converted checkpoint, the config of its model, and what the file had besides."""

    checkpoint: dict[str, Any]
    config: Path
    unused: list[str]  # tensors and entries of the file without use here


class _Candidate(NamedTuple):
    """A config and how the file differs from its model."""

    config: Path
    module: nn.Module
    weights: dict[str, Tensor]
    mismatches: list[KeyMismatch]


def convert(contents: Contents, source: str, configs: Path) -> Conversion:
    """Convert a released checkpoint.

    Args:
        contents: the file's content.
        source: its name or address.
        configs: folder of ``metafile.yml``, whose configs are compared with the file.

    Returns:
        The checkpoint has ``state_dict`` and ``meta``: ``source``, the release's layout; ``config``, the config's name;
        and ``dataset_meta`` with the classes, if they are COCO's.

    Raises:
        InputError: the file has no released layout, or its tensors aren't those of a model of the configs.
    """
    translation = from_release(contents.weights)
    if translation is None:
        if contents.entry == 'state_dict' or any(name.startswith('bbox_head.') for name in contents.weights):
            raise InputError(f'The checkpoint {source} has the layout of MMDetection already: use it as it is.')
        raise InputError(
            f'The checkpoint {source} has no layout that is known here: give one of CenterMask, CenterMask2 or '
            'TensorMask, or an ImageNet VoVNet, MobileNetV2 or ResNet.'
        )
    found = _find_config(translation, source, configs)
    faults = [str(fault._replace(key=translation.released_name(fault.key))) for fault in found.mismatches]
    faults += [f'{name} is unknown' for name in translation.unknown]
    if faults:
        raise InputError(
            f"The checkpoint {source} can't be converted, it isn't a complete {found.config.stem} in the "
            f'{translation.layout} layout ({shortened("", faults)}): give the file as it was released.'
        )
    meta: dict[str, Any] = dict(source=translation.layout, config=found.config.stem)
    if _count_classes(translation) == len(CocoDataset.METAINFO['classes']):
        meta['dataset_meta'] = dict(CocoDataset.METAINFO)
    return Conversion(
        dict(meta=meta, state_dict=found.weights),
        found.config,
        [*translation.unused, *(str(name) for name in contents.others)],
    )


def _count_classes(translation: Translation) -> int:
    """Return the number of classes that the box head tells apart, 0 of a backbone."""
    # TensorMask has outputs for each of two windows.
    boxes = max(_length(translation, 'bbox_head.conv_reg.bias') // 4, 1)
    return _length(translation, 'bbox_head.conv_cls.bias') // boxes


def _length(translation: Translation, name: str) -> int:
    """Return the length of a tensor, 0 where it is absent or a number."""
    tensor = translation.weights.get(name)
    return 0 if tensor is None or not tensor.dim() else len(tensor)


def _find_config(translation: Translation, source: str, configs: Path) -> _Candidate:
    """Return the first config that the file fits, else the one that it differs least from.

    The config that the metafile names for a file of this name is tried first, then those of released models, long
    schedules before short ones. Subfolders have models that were never released, but for TensorMask's.
    """
    star = translation.layout != 'paper' and 'backbone.body.' not in translation.prefix
    collection, folder = ('CenterMask2' if star else 'CenterMask'), configs
    if translation.layout == 'tensormask':
        collection, folder = 'TensorMask', configs / 'baselines'
    of_recipe = [
        model
        for model in _load_index(configs / 'metafile.yml')['Models']
        if model['In Collection'] == collection
        and (configs.parent / model['Config']).parent == folder
        and ('semantic head' in model['Metadata']['Architecture']) == (translation.layout == 'panoptic')
    ]

    def priority(model: dict) -> tuple[bool, bool, int]:
        released = Path(urlparse(model.get('Weights', '')).path).name
        same_name = released == Path(urlparse(source).path).name
        return same_name, bool(released), model['Metadata'].get('Iterations', 0)

    ranked = sorted(of_recipe, key=priority, reverse=True)
    nearest = None
    for path in dict.fromkeys(configs.parent / model['Config'] for model in ranked):
        stuff = _length(translation, 'semantic_head.conv_logits.bias') - 1  # beside the channel of things
        module = _build(path, translation.layout in RECIPES, _count_classes(translation), stuff)
        weights = translation.weights
        if translation.layout in ('detectron2', 'caffe2'):  # which may have the statistics folded in
            weights = add_bn_statistics(module, weights)
        candidate = _Candidate(path, module, weights, find_mismatches(module, weights))
        if nearest is None or len(candidate.mismatches) < len(nearest.mismatches):
            nearest = candidate
        if not candidate.mismatches:
            break
    assert nearest is not None, 'the metafile has models of either recipe'
    return nearest


_load_index = cache(load)


@cache
def _build(config: Path, complete: bool, classes: int, stuff: int) -> nn.Module:
    """Build the config's model, or its backbone alone, without memory for its tensors."""
    model = Config.fromfile(config).model
    if complete:
        model.num_classes = classes or model.num_classes
        if 'semantic_head' in model:
            model.semantic_head.num_stuff_classes = max(stuff, 0) or model.semantic_head.num_stuff_classes
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model if complete else model.backbone)
