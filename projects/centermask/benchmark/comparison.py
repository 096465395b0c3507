"""Models timed side by side: what is measured of each, in which order and in which process."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.config import Config

from centermask.benchmark.costs import count_costs, count_flops, count_parameters
from centermask.benchmark.exported import exported_variants
from centermask.benchmark.machine import name_of_machine, peak
from centermask.benchmark.models import AS_SHIPPED, Settings, TimedModel, as_shipped, read_config, short_name, variants
from centermask.benchmark.predictions import detection_stats
from centermask.benchmark.rounds import interleaved, measure, summary, timed_on
from centermask.benchmark.stages import NETWORK, STAGES, Stopwatch, timed_by_stage
from centermask.benchmark.training import TrainStep, loader_rate
from centermask.fast.fused_layers import half_type
from centermask.utils.errors import InputError

STAGE_ROUNDS = 5

Log = Callable[[str], None]
Call = Callable[..., Any]
"""Calls a function with arguments, in this process or another."""


class Entry(NamedTuple):
    """A model or training step that is timed.

    Attributes:
        name: that its process knows it by.
        call: runs functions in that process.
        facts: its entry in the results, which grows.
    """

    name: str
    call: Call
    facts: dict[str, Any]


# What a process holds, by name.
_models: dict[str, TimedModel] = {}
_steps: dict[str, TrainStep] = {}


def compare(configs: Sequence[str], settings: Settings, log: Log = lambda line: None) -> dict[str, Any]:
    """Time models on images and return the results as the benchmark's JSON file holds them.

    Raises:
        InputError: a config can't be used.
    """
    kinds = [read_config(name).model.type for name in configs]
    fast = [kind == 'CenterMask' for kind in kinds]
    models: list[Entry] = []
    steps: list[Entry] = []
    with _processes(settings, fast) as (here, other):
        for number, (name, is_fast) in enumerate(zip(configs, fast, strict=True), 1):
            parts = [(here if is_fast else other, replace(settings, equal=False))]
            if settings.equal and not is_fast:
                parts.append((here, replace(settings, amp=False, channels_last=False, compiled=False, runtimes=())))
            for call, part in parts:
                loaded, lines = call(load, name, part)
                models += [Entry(key, call, facts) for key, facts in loaded]
                for line in lines:
                    log(f'{number}/{len(configs)} {line}')
            if settings.batch_size:
                steps.append(Entry(name, other, other(load_step, name, settings)))
        peaks = _peaks(settings)
        # Each model runs each image before it is timed: at a new size it allocates memory and reorders weights.
        _add_times(models, run, settings.rounds, len(settings.images), log)
        _add_times(steps, run_step, settings.rounds, 1, log)
        for step in steps:
            step.facts['positive RoIs'] = step.call(positives, step.name)
        if settings.stages:
            _add_costs(models, log)
            _add_stages(models, log)
        peaks = {name: max(value, peaks[name]) for name, value in _peaks(settings).items()}
    _add_ratios(models, peaks)
    return dict(
        machine=name_of_machine(settings.device),
        date=date.today().isoformat(),
        command=' '.join(['python', *sys.argv]),
        torch=torch.__version__,
        peak={name: round(value) for name, value in peaks.items()},
        rounds=settings.rounds,
        images=[list(image.shape[:2]) for image in settings.images],
        models=[model.facts for model in models],
        training=[step.facts for step in steps],
    )


@contextmanager
def _processes(settings: Settings, fast: Sequence[bool]) -> Iterator[tuple[Call, Call]]:
    """Yield how to run what keeps the memory of large tensors, and how to run everything else.

    A CenterMask, as an equal model, sets glibc's memory allocation for its whole process. On a CPU other models would
    be faster beside it than they are for their users, so they, and training, run in a process of their own.
    """

    def here(function: Callable, *args: Any) -> Any:
        return function(*args)

    both = (any(fast) or settings.equal) and (not all(fast) or settings.batch_size > 0)
    try:
        if settings.device != 'cpu' or not both:
            yield here, here
            return
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:
            yield here, lambda function, *args: executor.submit(function, *args).result()
    finally:
        _models.clear()
        _steps.clear()


def load(name: str, settings: Settings) -> tuple[list[tuple[str, dict]], list[str]]:
    """Build a model as shipped and its variants in this process; if ``settings.equal``, the equal one alone.

    Returns:
        names and facts of the models, and lines to log.

    Raises:
        InputError: the config can't be used, or its model fails with random weights.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    config = read_config(name)
    first = as_shipped(name, config, settings)
    try:
        stats = detection_stats(first)
    except RuntimeError as error:
        raise InputError(f'The model of {name} fails with random weights: {str(error).splitlines()[0]}') from error
    lines = [] if settings.equal else [f'{short_name(name)}: {stats}']
    loaded = []
    others = [*variants(first, settings), *exported_variants(first, config, settings)]
    for model in others if settings.equal else [first, *others]:
        try:  # some models of MMDetection don't run in half precision
            model.run(0)
        except (RuntimeError, NotImplementedError) as error:
            lines.append(f'{model} is left out, it fails: {str(error).splitlines()[0]}')
            continue
        key = f'{name}, {model.variant}'
        _models[key] = model
        facts = dict(
            config=name,
            variant=model.variant,
            backend=model.backend,
            precision=model.precision,
            masks=model.masks,
            input=model.input_size,
            parameters=count_parameters(first.model),
            **{'mask AP': None},  # the plot takes the paper's
        )
        loaded.append((key, facts | stats._asdict()))
    return loaded, lines


def load_step(name: str, settings: Settings) -> dict[str, Any]:
    """Build a training step in this process and return its facts, the loader's rate among them."""
    config = read_config(name)
    rate = loader_rate(config)
    model = as_shipped(name, config, settings).model
    _steps[name] = TrainStep(config, model, settings.batch_size, settings.size)
    facts = {'config': name, 'batch size': settings.batch_size, 'input': list(_steps[name].input_size)}
    return facts | {'loader images/s/core': rate}


def run(name: str, number: int) -> float:
    """Return the seconds of a round's image."""
    return _models[name].seconds(number)


def run_step(name: str, number: int) -> float:
    """Return the seconds of a training step."""
    device = str(next(_steps[name].model.parameters()).device)
    return timed_on(device)(_steps[name].run)


def positives(name: str) -> float | None:
    """Return the positive RoIs an image of the last training step."""
    return _steps[name].positives


def flops(name: str) -> int:
    """Return the FLOPs of an image."""
    return count_flops(_models[name])


def costs(name: str) -> dict[str, Any]:
    """Return calls, waits and memory of an image."""
    return count_costs(_models[name])


def stages(name: str, number: int) -> dict[str, float]:
    """Return the seconds of a round's image by stage."""
    model = _models[name]
    watch = Stopwatch(_clock(model.device))
    with model.memory(), timed_by_stage(model.model, watch), watch.whole():
        model.run(number)
    return watch.seconds


def latency(config: Config, settings: Settings) -> tuple[float, tuple[int, int]]:
    """Return the median milliseconds of an image, timed alone in this process, and the image's height and width."""
    model = as_shipped('', config, settings)
    seconds = measure({'': model.seconds}, settings.rounds)
    return summary(seconds['']).median, model.input_size


def _add_times(entries: Sequence[Entry], function: Callable, rounds: int, warm_up: int, log: Log) -> None:
    if not entries:
        return
    log(f'{len(entries)} to time in {rounds} rounds after {warm_up} to warm up')
    runs = {entry.name: partial(entry.call, function, entry.name) for entry in entries}
    seconds = measure(runs, rounds, warm_up, log)
    for entry in entries:
        times = summary(seconds[entry.name])
        entry.facts.update(ms=times.median, quartiles=[times.lower, times.upper])
        entry.facts['ratio'] = times.median / entries[0].facts['ms']


def _add_costs(models: Sequence[Entry], log: Log) -> None:
    log('counting FLOPs, operator calls, host waits and memory')
    counted: dict[str, int] = {}
    for name, call, facts in models:
        if facts['variant'] == AS_SHIPPED:
            counted[facts['config']] = call(flops, name)
        facts['flops'] = counted[facts['config']]
        if facts['backend'] == 'eager':  # of others the operators can't be seen
            facts.update(call(costs, name))


def _add_stages(models: Sequence[Entry], log: Log) -> None:
    """Time stages in rounds of their own, since watching them takes time."""
    log(f'timing stages in {STAGE_ROUNDS} rounds')
    eager = {model.name: model for model in models if model.facts['backend'] == 'eager'}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in eager}
    for number, name in interleaved(list(eager), STAGE_ROUNDS):
        rounds[name].append(eager[name].call(stages, name, number))
    for name, model in eager.items():
        model.facts['stages'] = {
            stage: 1000 * statistics.median(seconds.get(stage, 0.0) for seconds in rounds[name]) for stage in STAGES
        }


def _add_ratios(models: Sequence[Entry], peaks: dict[str, float]) -> None:
    """Add the time beside the network over the network's, and the network's FLOP/s over the machine's peak."""
    for *_, facts in models:
        if 'stages' in facts:
            facts['network ms'] = sum(facts['stages'][stage] for stage in NETWORK)
            facts['beside network'] = sum(facts['stages'].values()) / facts['network ms'] - 1
        if 'flops' in facts:  # of an exported model's time the network's part isn't known
            ms = facts.get('network ms', facts['ms'])
            facts['peak ratio'] = facts['flops'] / ms * 1000 / peaks[facts['precision']]


def _peaks(settings: Settings) -> dict[str, float]:
    dtypes = (torch.float32, half_type(torch.device(settings.device)), *([torch.int8] if settings.int8 else []))
    return {str(dtype).removeprefix('torch.'): peak(settings.device, dtype) for dtype in dtypes}


def _clock(device: str) -> Callable[[], float]:
    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now if device.startswith('cuda') else time.perf_counter
