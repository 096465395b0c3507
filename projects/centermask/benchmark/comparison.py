"""Models timed side by side: what is measured of each, in which order."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from centermask.benchmark.costs import costs_of, flops_of, pasting_of
from centermask.benchmark.exported import exported_ways
from centermask.benchmark.machine import name_of_machine, peak
from centermask.benchmark.malloc import without_kept_memory
from centermask.benchmark.models import SHIPPED, Contestant, other_ways, read_config, shipped, short_name
from centermask.benchmark.pictures import make_picture
from centermask.benchmark.rounds import interleaved, measure, summary, timed_on
from centermask.benchmark.stages import NETWORK, STAGES, Stopwatch, timed_by_stage
from centermask.benchmark.training import Step, loader_rate, prepare_training
from centermask.fast.fused_layers import half_type
from centermask.tables.measure import count_parameters

STAGE_ROUNDS = 5


@dataclass
class Wishes:
    """What is to be measured.

    Attributes:
        detections: on each picture.
        rounds: that are timed, after one for each picture that isn't.
        device: torch's name of it.
        size: of the test pictures' shorter and longer side; None leaves each config its own.
        masks: ``'tensor'`` or ``'rle'``.
        ways: what :func:`other_ways` takes.
        runtimes, int8: of exported models, see :func:`exported_ways`.
        stages: whether to time stages and count costs too.
        batch_size: of a training step, which is timed too if this isn't 0.
    """

    detections: int = 50
    rounds: int = 7
    device: str = 'cpu'
    size: tuple[int, int] | None = None
    masks: str = 'tensor'
    ways: Mapping[str, bool] | None = None
    runtimes: Sequence[str] = ()
    int8: bool = False
    stages: bool = True
    batch_size: int = 0


class Entrant(NamedTuple):
    """What is timed, and what the benchmark's file says of it, which grows."""

    contestant: Contestant
    entry: dict[str, Any]


class Trainee(NamedTuple):
    """A step of training that is timed, and what the benchmark's file says of it."""

    step: Step
    entry: dict[str, Any]


Say = Callable[[str], None]
"""Told, line by line, how far it is."""


def compare(
    configs: Sequence[str], pictures: Sequence[np.ndarray], wishes: Wishes, say: Say = lambda line: None
) -> dict[str, Any]:
    """Time models on pictures and return what was measured, as the benchmark's JSON file holds it.

    Raises:
        InputError: a config can't be used, or its model not be calibrated.
    """
    rates = [loader_rate(read_config(name)) for name in configs] if wishes.batch_size else []
    entrants, trainees = _line_up(configs, pictures, wishes, say)
    for (_, entry), rate in zip(trainees, rates, strict=True):
        entry['loader images/s/core'] = rate
    peaks = _peaks(wishes.device, wishes.int8)
    _add_times(entrants, wishes, say)
    if trainees:
        _add_training_times(trainees, wishes, say)
    if wishes.stages:
        _add_costs(entrants, wishes.device, say)
        _add_stages(entrants, wishes.device, say)
    peaks = {name: max(value, peaks[name]) for name, value in _peaks(wishes.device, wishes.int8).items()}
    _add_shares(entrants, peaks)
    return dict(
        machine=name_of_machine(wishes.device),
        date=date.today().isoformat(),
        command=' '.join(['python', *sys.argv]),
        torch=torch.__version__,
        peak={name: round(value) for name, value in peaks.items()},
        rounds=wishes.rounds,
        pictures=[list(picture.shape[:2]) for picture in pictures],
        models=[entrant.entry for entrant in entrants],
        training=[trainee.entry for trainee in trainees],
    )


def latency(config: Config, device: str) -> tuple[float, tuple[int, int]]:
    """Return the median time of one image in ms, as :func:`compare` measures it, and the image's height and width."""
    contestant, _ = shipped('', config, [make_picture(0)], Wishes.detections, device)
    seconds = measure({'': contestant.run}, Wishes.rounds, timed_on(device), memory=lambda name: contestant.memory())
    return summary(seconds['']).median, contestant.input_size


def _line_up(
    configs: Sequence[str], pictures: Sequence[np.ndarray], wishes: Wishes, say: Say
) -> tuple[list[Entrant], list[Trainee]]:
    """Build each config's model in all ways that are wished for, and its step of training."""
    entrants: list[Entrant] = []
    trainees: list[Trainee] = []
    ways = wishes.ways or {}
    for number, name in enumerate(configs, 1):
        config = read_config(name)
        first, found = shipped(name, config, pictures, wishes.detections, wishes.device, wishes.size, wishes.masks)
        say(
            f'{number}/{len(configs)} {short_name(name)}: {found.candidates:.0f} scores pass, '
            f'{found.into_nms:.0f} boxes into NMS, {found.detections:.0f} detections of {found.object_size:.0f} pixels'
        )
        exported = exported_ways(first, config, wishes.runtimes, ways.get('amp', False), wishes.int8)
        others = [one for one in (*other_ways(first, **ways), *exported) if _runs(one, say)]
        entrants += [Entrant(one, _facts(one, first) | found._asdict()) for one in (first, *others)]
        if wishes.batch_size:
            step = prepare_training(config, first.model, wishes.batch_size, wishes.size)
            entry = {
                'config': name,
                'batch size': wishes.batch_size,
                'input': list(step.input_size),
            }
            trainees.append(Trainee(step, entry))
    return entrants, trainees


def _runs(contestant: Contestant, say: Say) -> bool:
    """Whether a model runs in a way that it wasn't written for; some of MMDetection's don't in half precision."""
    try:
        contestant.run(0)
    except (RuntimeError, NotImplementedError) as error:
        say(f'{contestant} is left out, it fails: {str(error).splitlines()[0]}')
        return False
    return True


def _facts(contestant: Contestant, shipped: Contestant) -> dict[str, Any]:
    return dict(
        config=contestant.config,
        way=contestant.way,
        backend=contestant.backend,
        precision=contestant.precision,
        masks=contestant.masks,
        input=contestant.input_size,
        parameters=count_parameters(shipped.model),
        **{'mask AP': None},  # the plot takes the paper's
    )


def _add_times(entrants: Sequence[Entrant], wishes: Wishes, say: Say) -> None:
    by_name = {str(contestant): contestant for contestant, _ in entrants}
    runs = {name: contestant.run for name, contestant in by_name.items()}
    # A model meets each picture before it is timed: at a size that is new to it, it allocates and orders weights anew.
    warm_up = len(entrants[0].contestant.batches)
    say(f'{len(entrants)} to time in {wishes.rounds} rounds after {warm_up} to warm up')
    seconds = measure(runs, wishes.rounds, timed_on(wishes.device), warm_up, say, lambda name: by_name[name].memory())
    for contestant, entry in entrants:
        times = summary(seconds[str(contestant)])
        entry |= dict(ms=times.median, quartiles=[times.lower, times.upper])
        entry['ratio'] = times.median / entrants[0].entry['ms']


def _add_training_times(trainees: Sequence[Trainee], wishes: Wishes, say: Say) -> None:
    say(f'training steps of {wishes.batch_size} images')
    runs = {entry['config']: step.run for step, entry in trainees}
    seconds = measure(runs, wishes.rounds, timed_on(wishes.device), 1, say, lambda name: without_kept_memory())
    for step, entry in trainees:
        times = summary(seconds[entry['config']])
        entry['positive RoIs'] = step.positives
        entry |= dict(ms=times.median, quartiles=[times.lower, times.upper])
        entry['ratio'] = times.median / trainees[0].entry['ms']


def _add_costs(entrants: Sequence[Entrant], device: str, say: Say) -> None:
    say('counting operations, operator calls, host waits and memory')
    flops: dict[str, int] = {}
    for contestant, entry in entrants:
        if contestant.way == SHIPPED:
            flops[contestant.config] = flops_of(contestant)
        entry['flops'] = flops[contestant.config]
        if contestant.backend != 'eager':  # its operators can't be seen
            continue
        costs = costs_of(lambda contestant=contestant: contestant.run(0), device)  # type: ignore[misc]
        calls, waits = pasting_of(contestant)
        entry |= {
            'calls': costs.counted.calls,
            'calls of pasting': calls,
            'waits': costs.counted.waits,
            'waits of pasting': waits,
            'waits_by_operator': dict(costs.counted.by_operator.most_common()),
            'memory': costs.memory,
        }


def _add_stages(entrants: Sequence[Entrant], device: str, say: Say) -> None:
    """Time stages in rounds of their own, since looking at them takes time."""
    say(f'timing stages in {STAGE_ROUNDS} rounds')
    by_name = {str(contestant): contestant for contestant, _ in entrants if contestant.backend == 'eager'}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in by_name}
    for number, name in interleaved(list(by_name), STAGE_ROUNDS):
        watch = Stopwatch(_now_on(device))
        with by_name[name].memory(), timed_by_stage(by_name[name].model, watch), watch.whole():
            by_name[name].run(number)
        rounds[name].append(watch.seconds)
    for contestant, entry in entrants:
        if found := rounds.get(str(contestant)):
            entry['stages'] = {
                stage: 1000 * statistics.median(seconds.get(stage, 0.0) for seconds in found) for stage in STAGES
            }


def _add_shares(entrants: Sequence[Entrant], peaks: Mapping[str, float]) -> None:
    """Say what share of the time is beside the network, and of the machine's peak the network has."""
    for _, entry in entrants:
        if 'stages' in entry:
            entry['network ms'] = sum(entry['stages'][stage] for stage in NETWORK)
            entry['beside network'] = sum(entry['stages'].values()) / entry['network ms'] - 1
        if 'flops' in entry:
            # Of the network's time; where it isn't known, of all.
            entry['share of peak'] = (
                entry['flops'] / entry.get('network ms', entry['ms']) * 1000 / peaks[entry['precision']]
            )


def _peaks(device: str, int8: bool) -> dict[str, float]:
    dtypes = (torch.float32, half_type(torch.device(device)), *([torch.int8] if int8 else []))
    return {str(dtype).removeprefix('torch.'): peak(device, dtype) for dtype in dtypes}


def _now_on(device: str) -> Callable[[], float]:
    if not device.startswith('cuda'):
        return time.perf_counter

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
