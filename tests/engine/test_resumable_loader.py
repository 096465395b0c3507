"""The order of images and their augmentation, in trainings that resume."""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import InfiniteSampler, pseudo_collate
from torch.utils.data import BatchSampler, DataLoader

from centermask.engine.resumable_loader import Draws, TrainingLoader, end_workers, leave_signals_to_the_run


class Images:
    """Twenty images, most of them wide, that only note what is drawn while they are loaded."""

    def __init__(self) -> None:
        self.loaded = 0

    def __len__(self) -> int:
        return 20

    def get_data_info(self, index: int) -> dict:
        return {'width': 2 if index % 3 else 1, 'height': 1 if index % 3 else 2}

    def __getitem__(self, index: int) -> tuple:
        self.loaded += 1
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def _draws(grouped: bool, seed: int = 0) -> Draws:
    sampler = InfiniteSampler(Images(), seed=seed)
    batches = AspectRatioBatchSampler(sampler, 3) if grouped else BatchSampler(sampler, 3, drop_last=False)
    return Draws(batches, seed=0, ahead=4)


@pytest.mark.parametrize('grouped', [False, True])
def test_going_on_is_as_never_having_stopped(grouped: bool) -> None:
    whole = [draw for draw, _ in zip(_draws(grouped), range(40), strict=False)]
    assert [draw.iteration for draw in whole] == list(range(40))
    for stop in (0, 1, 7, 20):
        before = _draws(grouped)
        for _ in zip(range(stop + 4), before, strict=False):  # drawn ahead for the workers
            pass
        states = [before.state(stop)]
        after = _draws(grouped, seed=9)  # the sampler's seed is the checkpoint's
        assert after.go_on(stop, states, 0, 1)
        assert [draw for draw, _ in zip(after, range(10), strict=False)] == whole[stop : stop + 10]


def test_images_that_wait_for_others_are_saved() -> None:
    draws = _draws(True)
    waiting = []
    for draw in itertools.islice(draws, 12):
        waiting.append(draws.state(draw.iteration + 1)['waiting'])
    assert any(sum(map(len, buckets)) for buckets in waiting)  # else nothing was tested
    assert all(len(bucket) < 3 for buckets in waiting for bucket in buckets)


def test_another_number_of_processes_goes_on_in_another_order() -> None:
    draws = _draws(True)
    assert not draws.go_on(5, [draws.state(0), draws.state(0)], 0, 1)
    assert next(iter(draws)).iteration == 5
    assert not _draws(False).go_on(5, None, 0, 1)


def test_resuming_late_loads_nothing() -> None:
    images = Images()
    sampler = InfiniteSampler(images, seed=0)
    draws = Draws(AspectRatioBatchSampler(sampler, 2), seed=0, ahead=0)
    draws.go_on(200_000, [{'seed': 0, 'waiting': [[3], []]}], 0, 1)
    assert next(iter(draws)).iteration == 200_000 and images.loaded == 0


def _loader(workers: int, **kwargs: object) -> DataLoader:
    batches = BatchSampler(InfiniteSampler(Images(), seed=0), 2, drop_last=False)
    return DataLoader(Images(), batch_sampler=batches, num_workers=workers, collate_fn=pseudo_collate, **kwargs)


def test_augmentation_is_that_of_seed_iteration_and_index() -> None:
    """Whatever number of workers loads the images, and whatever was drawn before."""
    in_process = list(itertools.islice(TrainingLoader(_loader(0), seed=3), 6))
    np.random.rand()
    by_workers = list(itertools.islice(TrainingLoader(_loader(2), seed=3), 6))
    assert in_process == by_workers
    resumed = TrainingLoader(_loader(0), seed=3)
    resumed.draws.go_on(4, None, 0, 1)
    assert list(itertools.islice(resumed, 2)) == in_process[4:]
    other = list(itertools.islice(TrainingLoader(_loader(0), seed=4), 6))
    assert [batch[0] for batch in other] == [batch[0] for batch in in_process] and other != in_process


def test_workers_start_with_the_first_batch() -> None:
    loader = TrainingLoader(_loader(1, persistent_workers=True), seed=0)
    batches = iter(loader)
    assert loader._iterator is None
    next(batches)
    assert loader._iterator is not None


@pytest.mark.parametrize('persistent', [True, False])
def test_workers_end_with_their_loop(persistent: bool) -> None:
    loop = SimpleNamespace(dataloader=TrainingLoader(_loader(2, persistent_workers=persistent), seed=0))
    loop.runner = SimpleNamespace(loop=loop)  # as loops and runners know each other
    loop.dataloader_iterator = iter(loop.dataloader)
    others = set(multiprocessing.active_children())
    next(loop.dataloader_iterator)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    end_workers(loop, None)
    assert not any(worker.is_alive() for worker in workers)


def test_workers_survive_the_signals_of_schedulers() -> None:
    built = _loader(1)
    leave_signals_to_the_run(built)
    loader = TrainingLoader(built, seed=0)
    batches = DataLoader.__iter__(loader)
    first = next(batches)
    (worker,) = batches._workers
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert [first, *itertools.islice(batches, 5)] == list(itertools.islice(TrainingLoader(_loader(0), seed=0), 6))
    assert worker.is_alive()


def test_workers_are_deaf_but_end_with_the_program() -> None:
    """A loader that nobody shuts down, as a cycle keeps a run's: multiprocessing sends SIGTERM and waits for ever."""
    program = """
import os, signal, time
from torch.utils.data import DataLoader
from centermask.engine.resumable_loader import leave_signals_to_the_run
loader = DataLoader([1, 2, 3, 4], num_workers=1, persistent_workers=True)
leave_signals_to_the_run(loader)
assert len(list(loader)) == 4
worker = loader._iterator._workers[0]
os.kill(worker.pid, signal.SIGTERM)
os.kill(worker.pid, signal.SIGINT)
time.sleep(0.5)
assert worker.is_alive() and len(list(loader)) == 4
kept = loader, loader._iterator
kept[1].itself = kept
print('done')
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == 'done\n', done.stderr
