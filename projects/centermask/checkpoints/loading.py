"""Read a checkpoint, put its weights into a model, and say in one sentence what doesn't fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import RPNHead
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from centermask.checkpoints.layouts import to_ours
from centermask.checkpoints.reading import read
from centermask.utils.errors import ClassCountError, InputError


def read_checkpoint(source: str, map_location: Any = 'cpu', remedy: str = 'give the path of a checkpoint.') -> dict:
    """Read a checkpoint of ours or of a released code base.

    Args:
        source, map_location, remedy: as :func:`centermask.checkpoints.reading.read` takes them.

    Returns:
        What the file holds, with the weights under ``state_dict`` in our names whatever they were under, and without
        the ``module.`` of parallel wrappers. Of other layouts nothing but the weights remains.

    Raises:
        InputError: it is missing, can't be fetched, is damaged, holds no weights or something else where its meta is.
    """
    contents = read(source, map_location, remedy)
    translation = to_ours(contents.weights)
    if translation is None:
        if not isinstance(meta := contents.others.get('meta', {}), Mapping):
            raise InputError(f'The checkpoint {source} can not be used, its meta is {meta!r} and no dict: {remedy}')
        bare = {name.removeprefix('module.'): tensor for name, tensor in contents.weights.items()}
        return {**(contents.others if contents.entry == 'state_dict' else {}), 'state_dict': bare}
    unused = [*translation.kept, *translation.left_out]
    print_log(
        f'{source} has the {translation.layout} layout: {len(translation.weights)} tensors renamed'
        f'{shortened(", not used: ", unused)}',
        'current',
    )
    return {'state_dict': {**translation.weights, **translation.unknown}}


def shortened(words: str, names: list[str]) -> str:
    """``words`` and the first names, '' if there are none."""
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return f'{words}{", ".join(names[:3])}{more}' if names else ''


STATISTICS = ('.running_mean', '.running_var')


def has_statistics(weights: Mapping[str, Tensor]) -> bool:
    """Whether the norms of the file have statistics of their own."""
    return any(name.endswith(STATISTICS) for name in weights)


def with_statistics(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with statistics for the norms if the file has none at all.

    Caffe's and Detectron's older backbones have them absorbed into the scale and the bias. A mean of 0 and a variance
    of 1 less the epsilon leave these as they are.
    """
    if has_statistics(weights):
        return dict(weights)
    statistics = {}
    for name, norm in module.named_modules():
        if isinstance(norm, _BatchNorm) and f'{name}.weight' in weights:
            scale = weights[f'{name}.weight']
            statistics[f'{name}.running_mean'] = torch.zeros_like(scale)
            statistics[f'{name}.running_var'] = torch.full_like(scale, 1 - norm.eps)
    return {**weights, **statistics}


class Misfit(NamedTuple):
    """A tensor that the file and the model don't share: its name, its shape in each, None where it is absent."""

    key: str
    in_file: tuple[int, ...] | None
    in_model: tuple[int, ...] | None

    def __str__(self) -> str:
        file, model = ('absent' if shape is None else shape for shape in (self.in_file, self.in_model))
        return f'{self.key} is {file} in the file and {model} in the model'


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> list[Misfit]:
    """Load what fits and return what doesn't, in the model's order and then the file's.

    Batch counters of BN, which files older than torch 0.4.1 and frozen norms lack, may be absent.
    """
    state = dict(weights)  # modules rename what older versions of theirs had
    unexpected: list[str] = []

    def load(part: nn.Module, prefix: str) -> None:
        part._load_from_state_dict(state, prefix, {}, True, [], unexpected, [])
        for name, child in part.named_children():
            load(child, f'{prefix}{name}.')

    load(module, '')
    misfits = []
    for key, tensor in module.state_dict().items():
        in_file = tuple(state[key].shape) if key in state else None
        if in_file != tuple(tensor.shape) and not (in_file is None and key.endswith('num_batches_tracked')):
            misfits.append(Misfit(key, in_file, tuple(tensor.shape)))
    return misfits + [Misfit(key, tuple(state[key].shape), None) for key in unexpected]


def require_fit(misfits: list[Misfit], source: str, model: nn.Module) -> None:
    """Raise an :class:`InputError` that names the first misfit, if there is one."""
    if not misfits:
        return
    others = f' ({len(misfits)} tensors differ)' if len(misfits) > 1 else ''
    classes = class_counts(model, misfits)
    if classes:
        why = f'it was trained on {classes[0]} classes and the config has {classes[1]}'
    else:
        why = 'it belongs to another model'
    message = (
        f"The checkpoint {source} doesn't fit the config's model, {why}: {misfits[0]}{others}; "
        'give the config that it was trained with.'
    )
    raise ClassCountError(message, *classes) if classes else InputError(message)


def count_classes(model: nn.Module) -> int:
    """The number of classes that a model's heads tell apart (background not being one), 0 if none says."""
    return min(_class_numbers(model).values(), default=0)


def _class_numbers(model: nn.Module) -> dict[str, int]:
    """How many classes each part of a model tells apart, by its name; an RPN knows objects only."""
    numbers = {
        name: getattr(part, 'num_classes', None)
        for name, part in model.named_modules()
        if not isinstance(part, RPNHead)
    }
    return {name: number for name, number in numbers.items() if isinstance(number, int)}


def class_counts(model: nn.Module, misfits: list[Misfit]) -> tuple[int, int] | None:
    """The numbers of classes of the file and of the model, if that difference alone explains all misfits.

    It does where each shape differs in its first length only (a layer's outputs), which in the model is the number of
    classes, or one more where background has a channel, times what each class has (anchors, sides of a box), and where
    one number for the file explains all of them. Where a head with classes fits, the others differ for another reason:
    one recipe's masks count background, the other's don't.
    """
    if not all(any(misfit.key.startswith(name) for misfit in misfits) for name in _class_numbers(model)):
        return None
    here = count_classes(model)
    explained: set[int] | None = None
    for misfit in misfits:
        if not here or not misfit.in_file or not misfit.in_model or misfit.in_file[1:] != misfit.in_model[1:]:
            return None
        numbers = _class_numbers_by_lengths(misfit.in_file[0], misfit.in_model[0], here)
        explained = numbers if explained is None else explained & numbers
    return (explained.pop(), here) if explained and len(explained) == 1 else None


def _class_numbers_by_lengths(in_file: int, in_model: int, here: int) -> set[int]:
    """The numbers of classes that a layer of this length may have been of, if it has `in_model` with `here` classes."""
    numbers = set()
    for background in (0, 1):
        each, rest = divmod(in_model, here + background)
        if each and not rest and in_file % each == 0:
            numbers.add(in_file // each - background)
    return numbers - {0, here}


def start_from(model: nn.Module, checkpoint: dict, source: str) -> None:
    """Load a checkpoint as the start of a training: layers whose shape depends on the number of classes may stay fresh.

    Their fresh weights replace the file's in ``checkpoint``, so that whoever loads it next (an EMA hook) finds what the
    model has.

    Raises:
        InputError: anything else doesn't fit.
    """
    misfits = load_weights(model, checkpoint['state_dict'])
    classes = class_counts(model, misfits)
    if not classes:
        require_fit(misfits, source, model)
        return
    fresh = model.state_dict()
    checkpoint['state_dict'].update({misfit.key: fresh[misfit.key].clone() for misfit in misfits})
    layers = dict.fromkeys(misfit.key.rpartition('.')[0] for misfit in misfits)
    print_log(
        f'{source} was trained on {classes[0]} classes and the config has {classes[1]}: '
        f'{", ".join(layers)} start fresh.',
        logger='current',
        level=logging.WARNING,
    )
