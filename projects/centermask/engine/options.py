"""Check what ``--cfg-options`` names: MMEngine's merge accepts any key, so a misspelt one would change nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import mmdet.registry
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    FlexibleRunner,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from centermask.utils.errors import InputError

REGISTRIES = [value for value in vars(mmdet.registry).values() if isinstance(value, Registry)] + [FUNCTIONS]

# Keys that MMEngine or MMCV take out of a typed dict before the class sees it.
_TAKEN_OUT = {
    'type',
    '_scope_',
    '_delete_',
    'priority',  # of hooks
    'constructor',  # of the optimiser wrapper, as the next
    'paramwise_cfg',
    'convert_to_iter_based',  # of schedules
    'requires_grad',  # of norms
}

# What the runner reads besides the arguments of its class.
_RUNNER_EXTRAS: dict[str, Any] = dict(
    runner_type=str,
    model_wrapper_cfg=dict,
    sync_bn=Literal['torch', 'mmcv'] | None,
    find_unused_parameters=bool,
    compile=bool | dict,
    activation_checkpointing=Any,
    efficient_conv_bn_eval=Any,
    tta_model=dict | None,
    tta_pipeline=list | None,
)

_LOADER = (DataLoader, ('dataset', 'num_batch_per_epoch', 'disable_subprocess_warning'))

# What dicts without a type are arguments of, by their place or by the last part of it: names, or names with types.
_UNTYPED: dict[str, tuple[Callable | Iterable[str], ...]] = {
    '': (Runner, FlexibleRunner, _RUNNER_EXTRAS),
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop, ('by_epoch',)),
    'val_cfg': (ValLoop,),
    'test_cfg': (TestLoop,),
    'model.test_cfg': (('mask_format',),),
    'optim_wrapper': (OptimWrapper,),
    'optim_wrapper.clip_grad': (clip_grad_norm_,),
    'model_wrapper_cfg': (MMDistributedDataParallel,),
    'log_processor': (LogProcessor,),
    'randomness': (Runner.set_randomness,),
    'auto_scale_lr': (dict(enable=bool, base_batch_size=int),),
    'env_cfg': (dict(cudnn_benchmark=bool, mp_cfg=dict, dist_cfg=dict, resource_limit=int),),
    'env_cfg.mp_cfg': (dict(mp_start_method=str, opencv_num_threads=int),),
    'env_cfg.dist_cfg': (('backend', 'timeout', 'init_backend', 'port'),),
    'default_hooks': (('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'),),
    '*.metainfo': (('classes', 'palette'),),
    '*.filter_cfg': (dict(filter_empty_gt=bool, min_size=float),),
    '*.paramwise_cfg': (
        ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult'),
        ('dcn_offset_lr_mult', 'bypass_duplicate'),
    ),
}


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check that each option names something that the config has or that whatever it addresses takes.

    Args:
        cfg: the config before the options are merged.
        options: values by dotted key, as ``--cfg-options`` gives them.

    Raises:
        InputError: it doesn't. The sentence names the nearest key.
    """
    for option in options:
        _check(option, options, cfg._cfg_dict)


def _check(option: str, options: Mapping[str, Any], node: Any) -> None:
    """Follow an option from the top of the config to what it names."""
    place = ''
    for key in option.split('.'):
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node):
                raise InputError(
                    f'--cfg-options {option}: {place} is a list, its entries are {place}.0 to {place}.{len(node) - 1}.'
                )
            node = node[int(key)]
        else:
            if not isinstance(node, dict):
                if f'{place}._delete_' not in options:
                    raise InputError(
                        f'--cfg-options {option}: {place} is {node!r} in the config and has no entries; '
                        f'add {place}._delete_=True to replace it.'
                    )
                node = {}
            known, complete = arguments(place, options.get(f'{place}.type', node.get('type')))
            if not known and not node:
                return  # a dict that the config doesn't have, of which no class is known
            if key not in node and key not in known and not (place and key in _TAKEN_OUT):
                _reject(option, key, place, {*node, *known}, complete)
            if not place and key not in known:
                _reject_variable(option, key, node)
            node = node.get(key, {})
        place = f'{place}.{key}'.lstrip('.')


def owners(place: str, kind: str | type | None) -> tuple[Callable | Iterable[str], ...]:
    """What takes the entries of a dict of the config, by its type or by its place: classes, functions, or names."""
    if kind is None:
        return _UNTYPED.get(place) or _UNTYPED.get('*.' + place.rpartition('.')[2], ())
    if isinstance(kind, str):
        return tuple(filter(None, (registry.get(kind) for registry in REGISTRIES)))
    return (kind,)


def arguments(place: str, kind: str | type | None) -> tuple[set[str], bool]:
    """The names that a dict of the config may hold, by its type or by its place, and whether those are all."""
    names: set[str] = set()
    complete = True
    for owner in owners(place, kind):
        if callable(owner):
            found, all_found = _parameters(owner)
            names |= found
            complete &= all_found
        else:
            names |= set(owner)
    return names, complete


def _parameters(owner: Callable) -> tuple[set[str], bool]:
    """Names of a function's or class's arguments, and whether those are all.

    They aren't where a class hands ``**kwargs`` to something other than its bases.
    """
    names: set[str] = set()
    complete = False
    for function in initialisers(owner):
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {'self'}
        complete = not _hands_on(function)
    return names, complete


def initialisers(owner: Callable) -> list[Callable]:
    """A function, or the ``__init__`` of a class and of those bases that it hands ``**kwargs`` to."""
    if not isinstance(owner, type):
        return [owner]
    found = [vars(base)['__init__'] for base in inspect.getmro(owner)[:-1] if '__init__' in vars(base)]
    last = next((index for index, function in enumerate(found) if not _hands_on(function)), len(found))
    return found[: last + 1]


def _hands_on(function: Callable) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _reject(option: str, key: str, place: str, known: Iterable[str], complete: bool) -> None:
    """Refuse a key, but where more are possible than ``known`` only one that looks like a slip of the pen."""
    near = get_close_matches(key, known, n=1, cutoff=0.5 if complete else 0.8)
    if not near and not complete:
        return
    where = f'{place} has' if place else 'the config and the runner have'
    hint = (
        f'did you mean {place + "." if place else ""}{near[0]}?' if near else f'known are {", ".join(sorted(known))}.'
    )
    raise InputError(f'--cfg-options {option}: {where} no {key!r}; {hint}')


def _reject_variable(option: str, key: str, config: dict) -> None:
    """Refuse a name that the config file only uses to write other entries, which were written before options count."""
    value = config[key]
    entries = [
        place
        for place, other in _entries({name: node for name, node in config.items() if name in arguments('', None)[0]})
        if (place.endswith(f'.{key}') or isinstance(value, dict | list)) and other == value
    ]
    use = ' and '.join(entries[:4]) or 'the entries made from it'
    raise InputError(
        f'--cfg-options {option}: {key} is a variable that the config file has used already, so that setting it would '
        f'change nothing; set {use}.'
    )


def _entries(node: Any, place: str = '') -> Iterable[tuple[str, Any]]:
    """Every entry of a nested config with its dotted place."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        inner = f'{place}.{key}'.lstrip('.')
        yield inner, value
        yield from _entries(value, inner)
