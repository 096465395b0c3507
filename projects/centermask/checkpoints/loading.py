"""Read a checkpoint, load its weights into a model, and name in one sentence what doesn't match."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.seg_heads.base_semantic_head import BaseSemanticHead
from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.checkpoints.layouts import from_release
from centermask.checkpoints.reading import read
from centermask.utils.errors import InputError


def read_checkpoint(
    source: str, map_location: Any = 'cpu', remedy: str = 'give the path of a checkpoint.', panoptic: bool = True
) -> dict:
    """Return the content of a checkpoint of MMDetection's or of a released layout.

    Args:
        source: file, URL or short form, as :func:`~centermask.checkpoints.reading.read` takes it.
        map_location: as for ``torch.load``.
        remedy: what the user can do where it can't be read, the end of the sentence.
        panoptic: whether it is for a model with a semantic head; for others that of a released file is left out.

    Returns:
        The weights are under ``state_dict`` by MMDetection's names, without the ``module.`` of parallel wrappers. Of
        released layouts nothing else remains.

    Raises:
        InputError: it is missing, can't be fetched, is damaged, holds no weights, or its meta is no dict.
    """
    contents = read(source, map_location, remedy)
    translation = from_release(contents.weights, panoptic)
    if translation is None:
        if not isinstance(meta := contents.others.get('meta', {}), Mapping):
            raise InputError(f"The checkpoint {source} can't be used, its meta is {meta!r} and no dict: {remedy}")
        bare = {name.removeprefix('module.'): tensor for name, tensor in contents.weights.items()}
        return {**(contents.others if contents.entry == 'state_dict' else {}), 'state_dict': bare}
    print_log(
        f'{source} has the {translation.layout} layout: {len(translation.weights)} tensors renamed'
        f'{shortened(", not used: ", translation.unused)}',
        'current',
    )
    return {'state_dict': {**translation.weights, **translation.unknown}}


def shortened(words: str, names: list[str]) -> str:
    """Return the words and the first three names, '' if there are none."""
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return f'{words}{", ".join(names[:3])}{more}' if names else ''


def add_bn_statistics(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, with statistics for the norms if the file has none at all.

    Caffe's and Detectron's older backbones have them folded into scale and bias. A mean of 0 and a variance of
    1 - epsilon leave these as they are.
    """
    if any(name.endswith(('.running_mean', '.running_var')) for name in weights):
        return dict(weights)
    statistics = {}
    for name, norm in module.named_modules():
        if isinstance(norm, _BatchNorm) and f'{name}.weight' in weights:
            scale = weights[f'{name}.weight']
            statistics[f'{name}.running_mean'] = torch.zeros_like(scale)
            statistics[f'{name}.running_var'] = torch.full_like(scale, 1 - norm.eps)
    return {**weights, **statistics}


class KeyMismatch(NamedTuple):
    """A tensor that file and model don't share: its name and its shape in each, None where it is absent."""

    key: str
    in_file: tuple[int, ...] | None
    in_model: tuple[int, ...] | None

    def __str__(self) -> str:
        file, model = ('absent' if shape is None else shape for shape in (self.in_file, self.in_model))
        return f'{self.key} is {file} in the file and {model} in the model'


def find_mismatches(module: nn.Module, weights: Mapping[str, Tensor]) -> list[KeyMismatch]:
    """Return what doesn't match, in the model's order and then the file's.

    Batch counters of BN may be absent: files older than torch 0.4.1 and frozen norms have none.
    """
    in_model, in_file = ({k: tuple(t.shape) for k, t in tensors.items()} for tensors in (module.state_dict(), weights))
    return [
        KeyMismatch(key, in_file.get(key), in_model.get(key))
        for key in {**in_model, **in_file}
        if in_file.get(key) != in_model.get(key) and not (key not in in_file and key.endswith('num_batches_tracked'))
    ]


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> list[KeyMismatch]:
    """Load the tensors that match, and return those that don't."""
    mismatches = find_mismatches(module, weights)
    unfit = {mismatch.key for mismatch in mismatches}
    module.load_state_dict({key: tensor for key, tensor in weights.items() if key not in unfit}, strict=False)
    return mismatches


def check_match(mismatches: list[KeyMismatch], source: str, model: nn.Module) -> None:
    """Raise an :class:`InputError` that names the first mismatch, if there is one."""
    if not mismatches:
        return
    others = f' ({len(mismatches)} tensors differ)' if len(mismatches) > 1 else ''
    classes = class_counts(model, mismatches)
    why, remedy = 'it belongs to another model', 'give the config that it was trained with'
    if classes:
        why = f'it was trained on {classes[0]} classes and the config has {classes[1]}'
        remedy += ', and data of its classes'
    raise InputError(
        f"The checkpoint {source} doesn't fit the config's model, {why}: {mismatches[0]}{others}; {remedy}."
    )


def load_pretrained(model: nn.Module, checkpoint: dict, source: str) -> None:
    """Load a checkpoint to train on from; layers whose shape depends on the number of classes may start fresh.

    Their fresh weights replace the file's in ``checkpoint``, because an EMA hook loads from it next.

    Raises:
        InputError: anything else doesn't match.
    """
    mismatches = load_weights(model, checkpoint['state_dict'])
    of_stuff = _of_stuff(model, mismatches)
    classes = class_counts(model, mismatches)
    if not classes and len(mismatches) > len(of_stuff):
        check_match(mismatches, source, model)
    if not mismatches:
        return
    fresh = model.state_dict()
    checkpoint['state_dict'].update({mismatch.key: fresh[mismatch.key].clone() for mismatch in mismatches})
    layers = dict.fromkeys(mismatch.key.rpartition('.')[0] for mismatch in mismatches)
    trained = f'{classes[0]} classes and the config has {classes[1]}' if classes else 'another number of stuff classes'
    print_log(
        f'{source} was trained on {trained}: {", ".join(layers)} start fresh.',
        logger='current',
        level=logging.WARNING,
    )


def count_classes(model: nn.Module) -> int:
    """Return a model's number of classes without background, 0 if no part has one."""
    return min(_class_numbers(model).values(), default=0)


def _class_numbers(model: nn.Module) -> dict[str, int]:
    """Return the number of classes of each part that has one, by the part's name.

    Left out are RPNs, which only find objects, and the parts that know classes of stuff.
    """
    others = (RPNHead, BaseSemanticHead, BasePanopticFusionHead)
    parts = [(name, part) for name, part in model.named_modules() if not isinstance(part, others)]
    numbers = {name: getattr(part, 'num_classes', None) for name, part in parts}
    return {name: number for name, number in numbers.items() if isinstance(number, int)}


def class_counts(model: nn.Module, mismatches: list[KeyMismatch]) -> tuple[int, int] | None:
    """Return the numbers of classes of the file and of the model if they alone explain all mismatches, else None.

    They do where every part with classes has a mismatch and one number of the file's classes explains each of them. The
    number of stuff classes may differ too.
    """
    numbers = _class_numbers(model)
    of_stuff = _of_stuff(model, mismatches)
    mismatches = [mismatch for mismatch in mismatches if mismatch not in of_stuff]
    in_model = min(numbers.values(), default=0)
    if not mismatches or not all(any(m.key.startswith(name) for m in mismatches) for name in numbers):
        return None
    in_file = set.intersection(*(_possible_class_counts(mismatch, in_model) for mismatch in mismatches))
    return (in_file.pop(), in_model) if len(in_file) == 1 else None


def _of_stuff(model: nn.Module, mismatches: list[KeyMismatch]) -> list[KeyMismatch]:
    """Return the mismatches of a semantic head's last layer, which has an output for each class of stuff."""
    heads = [name for name, part in model.named_modules() if isinstance(part, BaseSemanticHead)]
    return [
        mismatch
        for mismatch in mismatches
        if any(mismatch.key.startswith(f'{head}.conv_logits.') for head in heads)
        and mismatch.in_file
        and mismatch.in_model
        and mismatch.in_file[1:] == mismatch.in_model[1:]
    ]


def _possible_class_counts(mismatch: KeyMismatch, in_model: int) -> set[int]:
    """Return the numbers of classes in the file that would explain a mismatch.

    A layer has as many outputs as there are classes, or one more with a channel for background, times what each class
    has (anchors, sides of a box).
    """
    file, model = mismatch.in_file, mismatch.in_model
    if not in_model or not file or not model or file[1:] != model[1:]:
        return set()
    counts = set()
    for background in (0, 1):
        outputs, rest = divmod(model[0], in_model + background)
        if outputs and not rest and file[0] % outputs == 0:
            counts.add(file[0] // outputs - background)
    return counts - {0, in_model}
