"""Check the types that a config names outside its model: of a wrong one MMEngine says no key, or not even the type."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from mmdet import registry
from mmengine.config import Config
from mmengine.registry import Registry

from centermask.utils.errors import InputError

_PLACES: dict[str, Registry] = {  # * stands for any key of a dict and any entry of a list, if there are several
    'optim_wrapper.type': registry.OPTIM_WRAPPERS,
    'optim_wrapper.constructor': registry.OPTIM_WRAPPER_CONSTRUCTORS,
    'optim_wrapper.optimizer.type': registry.OPTIMIZERS,
    'param_scheduler.type': registry.PARAM_SCHEDULERS,
    'param_scheduler.*.type': registry.PARAM_SCHEDULERS,
    'default_hooks.*.type': registry.HOOKS,
    'custom_hooks.*.type': registry.HOOKS,
    'visualizer.type': registry.VISUALIZERS,
    'visualizer.vis_backends.*.type': registry.VISBACKENDS,
    'log_processor.type': registry.LOG_PROCESSORS,
}
for _mode in ('train', 'val', 'test'):
    _PLACES |= {
        f'{_mode}_cfg.type': registry.LOOPS,
        f'{_mode}_evaluator.type': registry.METRICS,
        f'{_mode}_evaluator.*.type': registry.METRICS,
        f'{_mode}_dataloader.sampler.type': registry.DATA_SAMPLERS,
        f'{_mode}_dataloader.batch_sampler.type': registry.DATA_SAMPLERS,
        f'{_mode}_dataloader.dataset.type': registry.DATASETS,
        f'{_mode}_dataloader.dataset.pipeline.*.type': registry.TRANSFORMS,
    }


_DICTS = (
    *('model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg'),
    *('optim_wrapper', 'auto_scale_lr', 'default_hooks', 'env_cfg', 'randomness', 'log_processor', 'visualizer'),
)


def check_types(cfg: Config) -> None:
    """Check that there is what a config names as its optimiser, schedules, hooks, data sets and so on.

    Raises:
        InputError: there isn't. The sentence names the key, the type and the nearest one that there is.
    """
    for key in _DICTS:
        if not isinstance(value := cfg.get(key, {}), dict | None):
            raise InputError(f"The config {cfg.filename} can't be used: {key} is a dict, not {value!r}.")
    for place, known in _PLACES.items():
        for found, name in _named(cfg._cfg_dict, place.split('.')):
            if known.get(name) is None:
                names = {*known.module_dict, *(known.parent.module_dict if known.parent else ())}
                near = get_close_matches(name, names, n=1)
                hint = f'; did you mean {near[0]}?' if near else ': correct it, or import its module in custom_imports.'
                raise InputError(
                    f"In the config {cfg.filename} {found} can't be used: "
                    f'{name} is not in the {known.name} registry{hint}'
                )


def _named(node: Any, keys: list[str], place: str = '') -> Iterator[tuple[str, str]]:
    """The dotted places that keys lead to, and the names there; what isn't text is a class already."""
    if not keys:
        if isinstance(node, str):
            yield place, node
        return
    entries = node if isinstance(node, dict) else dict(enumerate(node)) if isinstance(node, list | tuple) else {}
    for key, value in entries.items():
        if keys[0] in ('*', key):
            yield from _named(value, keys[1:], f'{place}.{key}'.lstrip('.'))
