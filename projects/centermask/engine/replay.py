"""Batches whose step was left out: written to a file that holds all it takes to compute them again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmcv import ops
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from centermask.checkpoints.loading import load_weights, require_fit
from centermask.engine.configs import config_errors
from centermask.engine.nonfinite import FiniteSteps, NotFinite
from centermask.engine.randomness import iteration_key, seed_all
from centermask.utils.atomic_io import write_synced
from centermask.utils.errors import InputError, RunError

LIMIT = 3
"""Steps left out in a row that end a run, and dumps that one process writes in a run."""

_BUILT = (MODELS, MODELS.parent, TASK_UTILS, TASK_UTILS.parent, WEIGHT_INITIALIZERS)  # what models are made of


class NotFiniteHook(Hook):
    """Tells of each step that was left out, writes its batches to a file, and ends the run at the third in a row.

    Raises:
        RunError: by then.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._batches: list[tuple[dict, dict[str, torch.Tensor]]] = []  # of this step, with their losses
        self._dumps: list[Path] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, FiniteSteps) and wrapper.starts_a_step:
            self._batches.clear()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, FiniteSteps):
            return
        self._batches.append((data_batch, outputs or {}))
        if wrapper.not_finite is None:
            return
        images = [path for batch, _ in self._batches for path in _paths(batch)]
        if wrapper.not_finite.here:
            self._report(runner, wrapper.not_finite, images)
        if wrapper.left_out == LIMIT:
            dump = f'python tools/replay.py {self._dumps[-1]} shows where it begins' if self._dumps else 'see the log'
            raise RunError(
                f'{LIMIT} steps in a row had a {wrapper.not_finite.what} that is not finite, up to iteration '
                f'{runner.iter + 1} (images {", ".join(images)}): lower the learning rate or lengthen the warm-up, set '
                f'optim_wrapper.clip_grad, train without --amp, or check these images and their boxes; {dump}.'
            )

    def _report(self, runner: Runner, why: NotFinite, images: list[str]) -> None:
        where = ''
        if len(self._dumps) < LIMIT:
            path = Path(runner.work_dir, f'not_finite_iter_{runner.iter + 1}_rank_{runner.rank}.pth')
            try:
                write_synced(path, partial(torch.save, dump_of(runner, [batch for batch, _ in self._batches])))
                self._dumps.append(path)
                where = f' Compute it again by: python tools/replay.py {path}'
            except RunError as error:  # the training can do without it
                where = f' {error}'
        runner.logger.error(  # MMEngine shows errors of every process
            f'Iteration {runner.iter + 1}, process {runner.rank}: a {why.what} is not finite and the step was left '
            f'out ({self._losses()}), images: {", ".join(images)}.{where}'
        )

    def _losses(self) -> str:
        return '; '.join(', '.join(f'{k} {v.item():.4g}' for k, v in parts.items()) for _, parts in self._batches)


def _paths(batch: dict) -> list[str]:
    return [str(sample.metainfo.get('img_path', '?')) for sample in batch['data_samples']]


def dump_of(runner: Runner, batches: list[dict]) -> dict:
    """What :func:`replay` takes, of tensors and plain values only."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return {
        'model': runner.cfg.model.to_dict(),
        'weights': model.state_dict(),
        'autocast': _autocast(runner.optim_wrapper),
        'key': iteration_key(runner),
        'iteration': runner.iter + 1,
        'batches': [
            {'inputs': list(batch['inputs']), 'samples': [_plain(sample) for sample in batch['data_samples']]}
            for batch in batches
        ],
    }


def _autocast(wrapper: FiniteSteps) -> str | None:
    """The type of mixed precision, None without."""
    if not isinstance(wrapper, AmpOptimWrapper):
        return None
    return str(wrapper.cast_dtype or torch.get_autocast_dtype(get_device())).removeprefix('torch.')


def _plain(value: Any) -> Any:
    """A sample, or something in it, as tensors and plain values."""
    if isinstance(value, DetDataSample | InstanceData):
        return {
            'kind': type(value).__name__,
            'metainfo': {key: _plain(item) for key, item in value.metainfo.items()},
            'fields': {key: _plain(item) for key, item in value.items()},
        }
    if isinstance(value, BaseBoxes):
        return value.tensor
    if isinstance(value, PolygonMasks):
        polygons = [[torch.as_tensor(polygon) for polygon in shape] for shape in value.masks]
        return {'kind': 'PolygonMasks', 'masks': polygons, 'size': (value.height, value.width)}
    if isinstance(value, BitmapMasks):
        return {'kind': 'BitmapMasks', 'masks': torch.as_tensor(value.masks), 'size': (value.height, value.width)}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if hasattr(value, 'tolist') and not isinstance(value, torch.Tensor) else value


def _sample(plain: Any) -> Any:
    """The sample, or something in it, that :func:`_plain` was given; boxes as tensors."""
    kind = plain.get('kind') if isinstance(plain, dict) else None
    if kind in ('DetDataSample', 'InstanceData'):
        made = {'DetDataSample': DetDataSample, 'InstanceData': InstanceData}[kind](metainfo=plain['metainfo'])
        for key, value in plain['fields'].items():
            setattr(made, key, _sample(value))
        return made
    if kind == 'PolygonMasks':
        polygons = [[polygon.numpy() for polygon in shape] for shape in plain['masks']]
        return PolygonMasks(polygons, *plain['size'])
    if kind == 'BitmapMasks':
        return BitmapMasks(plain['masks'].numpy(), *plain['size'])
    return plain


def replay(path: str, device: str = 'cpu', say: Callable[[str], None] = print) -> bool:
    """Compute the batches of a dump again and tell what isn't finite.

    Args:
        path: the dump.
        device: where to compute; the numbers are those of the training only on the device that it was on.
        say: what each line is given to.

    Returns:
        Whether everything was finite.

    Raises:
        InputError: the file isn't such a dump.
    """
    try:
        return _compute(torch.load(path, map_location='cpu', weights_only=True), path, device, say)
    except FileNotFoundError:
        raise InputError(f"The dump {path} doesn't exist: name a not_finite_*.pth of a work folder.") from None
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        why = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        raise InputError(
            f'{path} is no dump of a step that was left out, or one of another version ({why}): '
            'name a not_finite_*.pth of a work folder.'
        ) from error


def _require_known(config: Any, path: str) -> None:
    """Raise an :class:`InputError` where a model's config names a type or a file from outside MMDetection.

    MMEngine would import it and call it: anything that Python has.
    """
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        known = key not in ('_scope_', 'teacher_config') or value in ('mmdet', None)  # a package, the file of a config
        if key == 'type':
            registered = any(value in registry.module_dict for registry in _BUILT)
            known = isinstance(value, str) and (registered or (value[:1] != '_' and hasattr(ops, value)))
        if not known:
            raise InputError(
                f'The dump {path} can not be used, its model has {key}={value!r}, which is not of MMDetection: '
                'compute dumps again that your own trainings wrote.'
            )
        if isinstance(value, dict | list | tuple):
            _require_known(value, path)


def _compute(dump: dict, path: str, device: str, say: Callable[[str], None]) -> bool:
    batches = [
        {'inputs': batch['inputs'], 'data_samples': [_sample(sample) for sample in batch['samples']]}
        for batch in dump['batches']
    ]
    config, weights, key = dump['model'], dump['weights'], dump['key']
    dtype = getattr(torch, dump['autocast']) if dump['autocast'] else None
    say(f'iteration {dump["iteration"]}')
    _require_known(config, path)
    with config_errors(path):
        model = MODELS.build(ConfigDict(config))
    require_fit(load_weights(model, weights), path, model)
    model = model.to(device).train()
    finite = True
    for number, batch in enumerate(batches):
        seed_all(*(key[0], key[1], key[2] - (len(batches) - 1 - number)))
        say('images ' + ', '.join(_paths(batch)))
        with _Watch(model) as watch, torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            data = model.data_preprocessor(batch, True)
            total, parts = model.parse_losses(model(**data, mode='loss'))
        for name, value in parts.items():
            say(f'  {name} {value.item():.6g}')
        if watch.first:
            say(f'the first output that is not finite is that of {watch.first}')
        finite &= bool(total.isfinite().all()) and watch.first is None
        total.backward()
    wrong = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    bad = [name for name, value in model.state_dict().items() if name in weights and not weights[name].isfinite().all()]
    say(f'weights that are not finite: {len(bad)}{_first(bad)}')
    say(f'gradients that are not finite: {len(wrong)}{_first(wrong)}')
    return finite and not wrong


def _first(names: list[str]) -> str:
    return f', the first is {names[0]}' if names else ''


class _Watch:
    """Notes the first module, in the order of computing, that gives something not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.first: str | None = None
        self._handles = [
            module.register_forward_hook(partial(self._look, name)) for name, module in model.named_modules() if name
        ]

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, list | tuple) else [output]
        tensors = [item for item in outputs if isinstance(item, torch.Tensor) and item.is_floating_point()]
        if self.first is None and not all(bool(tensor.isfinite().all()) for tensor in tensors):
            self.first = name
