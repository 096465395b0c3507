"""Models timed side by side: what is measured of each, in which order and in which process."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from datetime import date
from functools import partial
from typing import Any

import torch
from mmengine.config import Config

from centermask.benchmark.costs import count_costs, count_flops, count_parameters
from centermask.benchmark.exported import export
from centermask.benchmark.machine import name_of_machine, peak
from centermask.benchmark.models import (
    AS_SHIPPED,
    EQUAL,
    Settings,
    TimedModel,
    Variant,
    fuses_itself,
    read_config,
    short_name,
    timed_model,
    variants_of,
)
from centermask.benchmark.rounds import interleaved, measure, summary
from centermask.benchmark.stages import NETWORK, STAGES, seconds_by_stage
from centermask.benchmark.training import TrainStep
from centermask.engine.cli import command_line
from centermask.utils.errors import InputError

STAGE_ROUNDS = 5

Log = Callable[[str], None]

_objects: dict[int, Any] = {}  # models and training steps of this process, by the number of their entry


class Entry:
    """A model or training step that is timed.

    Args:
        number: no other entry's.
        executor: runs it in another process; None in this one.
        build: called there with ``args``, returns the object.

    Attributes:
        facts: its entry in the results, which grows.
    """

    def __init__(self, number: int, executor: Executor | None, build: Callable, *args: Any) -> None:
        self.number, self.executor = number, executor
        self.facts: dict[str, Any] = {}
        self._run(_build, build, *args)

    def call(self, function: Callable, *args: Any) -> Any:
        """Return ``function(object, *args)`` from the object's process."""
        return self._run(_call, function, *args)

    def _run(self, function: Callable, *args: Any) -> Any:
        if self.executor is None:
            return function(self.number, *args)
        return self.executor.submit(function, self.number, *args).result()


def _build(number: int, build: Callable, *args: Any) -> None:
    _objects[number] = build(*args)


def _call(number: int, function: Callable, *args: Any) -> Any:
    return function(_objects[number], *args)


def compare(configs: Sequence[str], settings: Settings, log: Log = lambda line: None) -> dict[str, Any]:
    """Time models on images and return the results as the benchmark's JSON file holds them.

    A CenterMask, as an equal model, sets glibc's memory allocation for its whole process. On a CPU other models would
    be faster beside it than they are for their users, so they, and training, run in a process of their own.

    Raises:
        InputError: a config can't be used.
    """
    models: list[Entry] = []
    steps: list[Entry] = []
    loaded = [read_config(name) for name in configs]
    process = (
        ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) if settings.device == 'cpu' else nullcontext()
    )
    try:
        with process as executor:
            for number, (name, config) in enumerate(zip(configs, loaded, strict=True), 1):
                shipped = len(models)
                for variant in variants_of(config, settings):
                    keeps_memory = fuses_itself(config) or variant == EQUAL
                    line = f'{number}/{len(configs)} {short_name(name)}, {variant.name}'
                    try:
                        where = None if keeps_memory else executor
                        model = Entry(len(models), where, load, name, settings, variant, shipped)
                    except (RuntimeError, NotImplementedError) as error:
                        reason = str(error).splitlines()[0]
                        if variant == AS_SHIPPED:
                            raise InputError(f'The model of {name} fails with random weights: {reason}') from error
                        log(f'{line}: left out, it fails: {reason}')  # some models don't run in half precision
                        continue
                    model.facts = {'config': name, **model.call(facts_of)}
                    models.append(model)
                    log(f'{line}: {model.facts["detections"]} detections')
            if settings.batch_size:
                for number, name in enumerate(configs):
                    steps.append(Entry(-1 - number, executor, load_step, name, settings))
                    steps[-1].facts = {'config': name, 'batch size': settings.batch_size}
            # Each model runs each image before it is timed: at a new size it allocates memory and reorders weights.
            _add_times(models, TimedModel.seconds, settings.rounds, len(settings.images), log)
            _add_times(steps, TrainStep.seconds, settings.rounds, 1, log)
            for step in steps:
                step.facts.update(step.call(TrainStep.facts))
            if settings.stages:
                _add_costs(models, log)
                _add_stages(models, log)
    finally:
        _objects.clear()
    precisions = list(dict.fromkeys(model.facts['precision'] for model in models))
    peaks = {name: round(peak(settings.device, getattr(torch, name))) for name in precisions}
    for model in models if settings.stages else ():
        _add_ratios(model.facts, peaks)
    return dict(
        machine=name_of_machine(settings.device),
        date=date.today().isoformat(),
        command=command_line(),
        torch=torch.__version__,
        peak=peaks,
        rounds=settings.rounds,
        images=[list(image.shape[:2]) for image in settings.images],
        models=[model.facts for model in models],
        training=[step.facts for step in steps],
    )


def load(name: str, settings: Settings, variant: Variant, shipped: int) -> TimedModel:
    """Build a model in this process and run it once.

    Args:
        name: of the config.
        settings: images, detections, device, threads, size and masks.
        variant: to build.
        shipped: number of the entry of the config's model as shipped, which is the one that is exported.

    Raises:
        InputError: the config can't be used.
        RuntimeError, NotImplementedError: the model fails.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = read_config(name)
    if variant.backend == 'eager':
        model = timed_model(config, settings, variant)
    else:
        model = export(_objects[shipped], config, settings.detections, variant)
    model.run()
    return model


def load_step(name: str, settings: Settings) -> TrainStep:
    """Build a training step in this process."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = read_config(name)
    return TrainStep(config, timed_model(config, settings).model, settings.batch_size, settings.size)


def facts_of(model: TimedModel) -> dict[str, Any]:
    """Return a model's variant, input size and numbers of candidates and detections."""
    return {
        'variant': model.variant.name,
        'backend': model.variant.backend,
        'precision': model.variant.precision,
        'masks': model.masks,
        'input': model.input_size,
        'candidates': model.predictions and model.predictions.candidates,
        'detections': len(model.run()[0].pred_instances),
        'mask AP': None,  # the plot takes the paper's
    }


def latency(config: Config, settings: Settings) -> tuple[float, tuple[int, int]]:
    """Return the median milliseconds of an image, timed alone in this process, and the image's height and width."""
    model = timed_model(config, settings)
    seconds = measure({0: model.seconds}, settings.rounds)
    return summary(seconds[0]).median, model.input_size


def _add_times(entries: Sequence[Entry], function: Callable, rounds: int, warm_up: int, log: Log) -> None:
    if not entries:
        return
    log(f'{len(entries)} to time in {rounds} rounds after {warm_up} to warm up')
    seconds = measure({e.number: partial(e.call, function) for e in entries}, rounds, warm_up, log)
    for entry in entries:
        times = summary(seconds[entry.number])
        entry.facts.update(ms=times.median, quartiles=[times.lower, times.upper])
        entry.facts['ratio'] = times.median / entries[0].facts['ms']


def _add_costs(models: Sequence[Entry], log: Log) -> None:
    log('counting FLOPs, operator calls and host waits')
    shipped: dict[str, Any] = {}
    for model in models:
        if model.facts['variant'] == AS_SHIPPED.name:
            shipped = dict(parameters=model.call(_parameters), flops=model.call(count_flops))
        model.facts.update(shipped)
        if model.facts['backend'] == 'eager':  # of others the operators can't be seen
            model.facts.update(model.call(count_costs))


def _parameters(model: TimedModel) -> int:
    return count_parameters(model.model)


def _add_stages(models: Sequence[Entry], log: Log) -> None:
    """Time stages in rounds of their own, since watching them takes time."""
    log(f'timing stages in {STAGE_ROUNDS} rounds')
    eager = [model for model in models if model.facts['backend'] == 'eager']
    rounds: dict[int, list[dict[str, float]]] = {model.number: [] for model in eager}
    for number, model in interleaved(eager, STAGE_ROUNDS):
        rounds[model.number].append(model.call(seconds_by_stage, number))
    for model in eager:
        model.facts['stages'] = {
            stage: 1000 * statistics.median(seconds.get(stage, 0.0) for seconds in rounds[model.number])
            for stage in STAGES
        }


def _add_ratios(facts: dict[str, Any], peaks: dict[str, int]) -> None:
    """Add the time beside the network over the network's, and the network's FLOP/s over the machine's peak."""
    if 'stages' in facts:
        facts['network ms'] = sum(facts['stages'][stage] for stage in NETWORK)
        facts['beside network'] = sum(facts['stages'].values()) / facts['network ms'] - 1
    ms = facts.get('network ms', facts['ms'])  # of an exported model's time the network's part isn't known
    facts['peak ratio'] = facts['flops'] / ms * 1000 / peaks[facts['precision']]
