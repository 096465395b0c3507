"""Check a config before anything is built of it: its types, the names of its arguments and their values.

Values are checked against the annotations of the class that takes them, by typeguard: it is pure Python, needs nothing
that torch doesn't bring, and never converts (pydantic takes ``'1'`` for 1; beartype checks one entry of a list).
"""

from __future__ import annotations

import collections.abc
import inspect
import re
from collections.abc import Callable, Collection, Iterator
from difflib import get_close_matches
from functools import cache
from types import FunctionType, NoneType, UnionType
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import mmcv.ops
import mmdet.registry
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import LogProcessor, Runner
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from typeguard import CollectionCheckStrategy, ForwardRefPolicy, TypeCheckError, check_type

from centermask.registry import TRANSFORMS
from centermask.utils.errors import InputError

REGISTRIES = [r for r in vars(mmdet.registry).values() if isinstance(r, Registry) and r.scope == 'mmdet'] + [FUNCTIONS]

# Names of version 0.1. Values that were renamed are outside of a Literal now, and the sentence lists the new ones.
RENAMED = {
    'average_normalizers': 'sync_avg_factor',
    'background_channel': 'legacy_background',
    'fold': 'fuse_conv_bn',
    'plus_one': 'legacy_boxes',
    'share': 'area_ratio',
    'MixedPrecisionOptimWrapper': 'NonFiniteSafeAmpOptimWrapper',
    'InclusiveBoxes': 'LegacyBoxes',
    'InclusiveFlip': 'LegacyFlip',
    'InclusiveOverlaps2D': 'LegacyBboxOverlaps2D',
}

# Keys that MMEngine or MMCV take out of a dict before the class sees it.
_POPPED_KEYS = ('type', '_scope_', 'priority', 'constructor', 'paramwise_cfg', 'convert_to_iter_based', 'requires_grad')
# What the runner reads besides its arguments.
_RUNNER_KEYS = (
    *('runner_type', 'custom_imports', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile'),
    *('activation_checkpointing', 'efficient_conv_bn_eval', 'tta_model', 'tta_pipeline'),
)
# What takes the entries of a dict that names no type, by its place.
_UNTYPED: dict[str, Callable] = {
    '': Runner,
    'train_dataloader': DataLoader,
    'val_dataloader': DataLoader,
    'test_dataloader': DataLoader,
    'optim_wrapper.clip_grad': clip_grad_norm_,
    'randomness': Runner.set_randomness,
    'log_processor': LogProcessor,
}


def check_options(cfg: Config, options: Collection[str]) -> None:
    """Check that ``--cfg-options`` would change something: MMEngine's merge accepts any key.

    Arguments of a class are left to :func:`check_config`, after the merge.

    Args:
        cfg: the config before the merge.
        options: dotted keys.

    Raises:
        InputError: one is misspelt, or is a variable that the config file has used already.
    """
    for option in options:
        if fault := _option_fault(option, cfg._cfg_dict, options):
            raise InputError(f'--cfg-options {option}: {fault}')


def _option_fault(option: str, node: Any, options: Collection[str]) -> str:
    """Follow an option from the top of the config; return a sentence if it would change nothing, else ''."""
    place, top = '', _runner_entries(node)
    for key in option.split('.'):
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node):
                return f'{place} is a list of {place}.0 to {len(node) - 1}.'
            node = node[int(key)]
        elif not isinstance(node, dict):
            new = f'{place}._delete_'
            return '' if new in options else f'{place} is {node!r} and has no entries; add {new}=True to replace it.'
        elif key not in node:
            if 'type' in node or (not place and key in _runner_keys()):
                return ''
            hint = _nearest(key, node if place else _runner_keys(), 0.85)
            hint = hint or ('' if place else 'give the dotted key of an entry.')
            return f'{place or "the config"} has no {key!r}; {hint}' if hint else ''
        else:
            node = node[key]
            if not place and key not in top and (same := _uses(key, node, top)):
                return f'{key} is a variable that the config file has used already; set {" and ".join(same[:4])}.'
        place = f'{place}.{key}'.lstrip('.')
    return ''


def _uses(name: str, value: Any, config: dict) -> list[str]:
    """Return the places of entries that were probably made from a variable of the config file."""
    equal = [place for place, other in _entries(config) if other == value]
    return equal if isinstance(value, dict | list) else [place for place in equal if place.endswith(f'.{name}')]


@cache
def _runner_keys() -> frozenset[str]:
    return frozenset({*_parameters(Runner), *_RUNNER_KEYS})


def _runner_entries(config: Config | dict) -> dict:
    """Return the config without the variables of its file."""
    return {key: value for key, value in config.items() if key in _runner_keys()}


def check_config(cfg: Config | dict) -> None:
    """Check the types that a config names, the arguments of each and their values.

    An unknown name is refused here if it is nearly a known one; the others MMEngine refuses where it builds.

    Raises:
        InputError: one can't be used. The sentence names its dotted place.
    """
    top = _runner_entries(cfg)
    for place, node in [('', top), *_entries(top)]:
        if isinstance(node, dict):
            for fault in _faults(place, node):
                raise InputError(f'In the config {getattr(cfg, "filename", None)} {fault}')


def _entries(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield every entry of a nested config with its dotted place."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        inner = f'{place}.{key}'.lstrip('.')
        yield inner, value
        yield from _entries(value, inner)


def _faults(place: str, node: dict) -> Iterator[str]:
    """Yield a sentence for each entry of a dict that what is built of it can't take."""
    kind = node.get('type')
    owner = _UNTYPED.get(place) if kind is None else _find(kind, node.get('_scope_')) if isinstance(kind, str) else kind
    if owner is None and isinstance(kind, str) and (hint := _nearest(kind, _registered(), 0.82)):
        yield f'{place}.type is {kind}, which is in no registry; {hint}'
    if not isinstance(owner, type | FunctionType):
        return
    parameters = _parameters(owner)
    ours = owner.__module__.startswith('centermask.')
    for key, value in node.items():
        inner = f'{place}.{key}'.lstrip('.')
        if key in parameters:
            hint, lenient = parameters[key]
            if not _fits(value, hint, lenient):
                yield f"{inner} can't be {value!r}: {owner.__name__} takes {_describe(hint)}."
        elif place and key not in _POPPED_KEYS and not any(hasattr(f, '__wrapped__') for f in _initialisers(owner)):
            if hint := _nearest(key, parameters, 0.5 if ours else 0.85):
                yield f'{inner} is no argument of {owner.__name__}; {hint}'
            elif ours and not any(map(_hands_on, _initialisers(owner)[-1:])):
                takes = ', '.join(sorted(parameters)) or 'none'
                yield f'{inner} is no argument of {owner.__name__}, which takes {takes}.'


def _nearest(name: str, known: Collection[str], cutoff: float) -> str:
    """Return the end of a sentence that names what was meant, empty if nothing is near."""
    if RENAMED.get(name) in known:
        return f'it was renamed to {RENAMED[name]}.'
    near = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f'did you mean {near[0]}?' if near else ''


def _find(kind: str, scope: str | None) -> Callable | None:
    """Return what is registered under a name, in our own scope or MMDetection's, or one of MMCV's operators."""
    found = (registry.get(kind) for registry in ([TRANSFORMS] if scope == TRANSFORMS.scope else REGISTRIES))
    return next((f for f in found if f is not None), getattr(mmcv.ops, kind, None))


def _registered() -> list[str]:
    return sorted({name for r in REGISTRIES for registry in (r, r.parent) if registry for name in registry.module_dict})


@cache
def _parameters(owner: Callable) -> dict[str, tuple[Any, bool]]:
    """Return the annotation of each argument of a class or function, and whether to check it leniently.

    Those of MMDetection and MMCV are lenient: their classes take lists, numbers and dicts that they don't annotate.
    An argument without an annotation has the type of its default, if this is a number or a flag.
    """
    found: dict[str, tuple[Any, bool]] = {}
    for function in _initialisers(owner):
        try:
            hints = get_type_hints(function, localns=vars(collections.abc))
        except (NameError, TypeError):  # of a name that is imported for type checkers only
            hints = {}
        lenient = function.__module__.startswith(('mmdet.', 'mmcv.'))
        for name, parameter in inspect.signature(function).parameters.items():
            if name != 'self' and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                by_default = {bool: bool, int: float, float: float}.get(type(parameter.default), Any)
                hint = hints.get(name, by_default)
                found.setdefault(name, (Optional[hint] if parameter.default is None else hint, lenient))  # noqa: UP045
    return found


def _initialisers(owner: Callable) -> list[Callable]:
    """Return a function, or the ``__init__`` of a class and of those bases that it hands ``**kwargs`` to."""
    if not isinstance(owner, type):
        return [owner]
    found = [vars(base)['__init__'] for base in owner.__mro__[:-1] if '__init__' in vars(base)]
    last = next((index for index, function in enumerate(found) if not _hands_on(function)), len(found))
    return found[: last + 1]


def _hands_on(function: Callable) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _fits(value: Any, hint: Any, lenient: bool) -> bool:
    """Check a value by an annotation. Lists count as tuples and whole floats (1e5) as integers, and the reverse."""
    if isinstance(value, dict) and 'type' in value:  # of which something is built
        return True
    if lenient and not isinstance(value, str) and hint not in (str, Optional[str]):  # noqa: UP045
        return True
    for variant in (value, _convert(value, tuple), _convert(value, list)):
        try:
            check_type(
                variant,
                hint,
                forward_ref_policy=ForwardRefPolicy.IGNORE,
                collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS,
            )
            return True
        except TypeCheckError:
            continue
    return False


def _convert(value: Any, sequence: type) -> Any:
    if isinstance(value, list | tuple):
        return sequence(_convert(entry, sequence) for entry in value)
    if isinstance(value, dict):  # MMEngine takes None for a default hook
        return {key: entry for key, entry in value.items() if entry is not None}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _describe(hint: Any) -> str:
    """Return an annotation in words, the same in all versions of Python."""
    if get_origin(hint) in (Union, UnionType):
        return ' or '.join(map(_describe, get_args(hint)))
    if get_origin(hint) is Literal:
        args = get_args(hint)  # VoVNet's `arch` may be '39' or 39
        return ' or '.join(repr(arg) for arg in args if isinstance(arg, str) or str(arg) not in args)
    return 'None' if hint is NoneType else re.sub(r'[\w.]+\.(?=\w)', '', inspect.formatannotation(hint))
