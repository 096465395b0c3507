"""Check a config's values by the annotations of what takes them: of text for a number torch tells late, and no key."""

from __future__ import annotations

import collections.abc
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmengine.config import Config
from torch import Tensor

from centermask.arguments import is_whole
from centermask.engine.known_types import check_types
from centermask.engine.options import arguments, initialisers, owners
from centermask.utils.errors import InputError

_WORDS = {  # what is said of a type
    bool: 'True or False',
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    list: 'a list',
    dict: 'a dict',
    NoneType: 'None',
}

# What MMEngine and torch accept at 0 or below, to divide by it, later, to turn gradients round or to do nothing.
_RANGES: tuple[tuple[re.Pattern, Callable[[float], bool], str], ...] = (
    (
        re.compile(
            r'param_scheduler\..*(start_factor|T_max|step_size)|optim_wrapper\.clip_grad\.max_norm|'
            r'auto_scale_lr\.base_batch_size|model\.neck\.out_channels|model\.train_cfg\.(.*\.)?sampler\.num|'
            r'log_processor\.window_size'
        ),
        lambda value: value > 0,
        'above 0',
    ),
    (
        re.compile(r'default_hooks\.checkpoint\.interval'),
        lambda value: value > 0 or value == -1,
        'above 0, or -1 for a checkpoint at the end only',
    ),
)


def check_config(cfg: Config) -> None:
    """Check that a config names only types that there are, and that its values are of the types that these take.

    Raises:
        InputError: not so.
    """
    check_types(cfg)
    check_values(cfg)


def check_values(cfg: Config) -> None:
    """Check that no value of a config has another type than what takes it is annotated with.

    MMDetection's models, transforms and samplers take other numbers and lists than they are annotated with; there only
    text is refused that should be none, and a number that should be text.

    Raises:
        InputError: a value has another. The sentence names its place.
    """
    known, _ = arguments('', None)  # other names are variables of the config file
    for place, value, hints in _annotated({key: node for key, node in cfg._cfg_dict.items() if key in known}):
        kinds = [kind for hint in hints for kind in _kinds(hint)]
        rough = re.match(r'(model|tta_model|tta_pipeline)\.|.*\.(dataset|sampler)\.', place) is not None
        if not any(_fits(value, kind, of, rough) for kind, of in kinds):
            raise InputError(f"In the config {cfg.filename} {place} can't be {value!r}: it is {_say(kinds)}.")
        for places, holds, words in _RANGES:
            if places.fullmatch(place) and isinstance(value, int | float) and not holds(value):
                raise InputError(f"In the config {cfg.filename} {place} can't be {value!r}: it is {words}.")


def _annotated(node: Any, place: str = '') -> Iterator[tuple[str, Any, list]]:
    """The entries of a nested config that some class or function takes, with the annotations of that."""
    if isinstance(node, dict):
        taking = [_annotations(owner) if callable(owner) else owner for owner in owners(place, node.get('type'))]
        for key, value in node.items():
            inner = f'{place}.{key}'.lstrip('.')
            if hints := [hints[key] for hints in taking if isinstance(hints, dict) and key in hints]:
                yield inner, value, hints
            yield from _annotated(value, inner)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _annotated(value, f'{place}.{index}')


@cache
def _annotations(owner: Callable) -> dict[str, Any]:
    """The types of the arguments of a function or class, by a base where a class hands them on.

    Those of an argument that isn't annotated are its default's, if that is a number or a list.
    """
    found: dict[str, Any] = {}
    for function in initialisers(owner):
        try:
            hints = get_type_hints(function, localns=vars(collections.abc))  # which torch imports for type checkers
        except (NameError, TypeError):  # of what else is imported for those only
            continue
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                continue
            if name in hints:
                found.setdefault(name, hints[name] | None if parameter.default is None else hints[name])
            elif isinstance(parameter.default, bool | int | float | list | tuple):
                found.setdefault(name, type(parameter.default) | None)
    return found


def _kinds(hint: Any) -> Iterator[tuple[Any, tuple]]:
    """The types that an annotation stands for, each with those of its entries; ``Any`` where that isn't known."""
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif kind is Literal:
        yield kind, get_args(hint)
    elif kind in _WORDS and kind is not list:
        yield kind, ()
    elif kind is Path:
        yield str, ()
    elif kind is Tensor:  # which no config holds
        return
    elif isinstance(kind, type) and issubclass(kind, Mapping):
        yield dict, ()
    elif kind is tuple or (isinstance(kind, type) and kind is not object and issubclass(list, kind)):
        entries = tuple(inner for of in get_args(hint) if of is not ... for inner in _kinds(of))
        yield list, () if (Any, ()) in entries else entries
    else:
        yield Any, ()


def _fits(value: Any, kind: Any, of: tuple, rough: bool) -> bool:
    if kind is Any or (isinstance(value, dict) and 'type' in value):  # of which something is built
        return True
    if kind is Literal:
        return value in of
    if kind is list and isinstance(value, list | tuple):
        return not of or all(any(_fits(entry, kind, inner, rough) for kind, inner in of) for entry in value)
    if rough and kind not in (str, NoneType) and not isinstance(value, str):
        return True
    if kind is bool:
        return value in (True, False)
    if kind is int:
        return is_whole(value) or (isinstance(value, float) and value.is_integer())  # as 1e5 is
    if kind is float:
        return is_whole(value) or isinstance(value, float)
    return isinstance(value, dict | list if kind is dict else kind)  # a visualizer's backends, said to be a dict


def _say(kinds: Iterable[tuple[Any, tuple]]) -> str:
    """Words for what a value may be."""
    said = [
        ' or '.join(map(repr, of)) if kind is Literal else _WORDS[kind] + (f', each entry {_say(of)}' if of else '')
        for kind, of in kinds
    ]
    return ' or '.join(dict.fromkeys(said))
