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

from centermask.engine.resumable_loader import ResumableBatchSampler, ResumableLoader, end_workers, shield_workers


class Images:
    """Twenty images, most of them wide, that return what is drawn while they are loaded."""

    def __init__(self) -> None:
        self.loaded = 0

    def __len__(self) -> int:
        return 20

    def get_data_info(self, index: int) -> dict:
        return {'width': 2 if index % 3 else 1, 'height': 1 if index % 3 else 2}

    def __getitem__(self, index: int) -> tuple:
        self.loaded += 1
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def _sampler(grouped: bool, images: Images, seed: int = 0) -> ResumableBatchSampler:
    sampler = InfiniteSampler(images, seed=seed)
    batches = AspectRatioBatchSampler(sampler, 3) if grouped else BatchSampler(sampler, 3, drop_last=False)
    return ResumableBatchSampler(batches, seed=seed)


@pytest.mark.parametrize('grouped', [False, True])
def test_a_later_start_gives_the_same_batches(grouped: bool) -> None:
    images = Images()
    complete = list(itertools.islice(_sampler(grouped, images), 40))
    assert [batch.iteration for batch in complete] == list(range(40))
    for start in (0, 1, 7, 20):
        resumed = _sampler(grouped, images, seed=9)
        resumed.set_seed(0)  # the checkpoint's
        resumed.fast_forward(start)
        assert list(itertools.islice(resumed, 10)) == complete[start : start + 10]
    assert images.loaded == 0


def _loader(workers: int, **kwargs: object) -> DataLoader:
    batches = BatchSampler(InfiniteSampler(Images(), seed=0), 2, drop_last=False)
    return DataLoader(Images(), batch_sampler=batches, num_workers=workers, collate_fn=pseudo_collate, **kwargs)


def test_augmentation_follows_from_seed_iteration_and_index() -> None:
    """For any number of workers, and whatever was drawn before."""
    in_process = list(itertools.islice(ResumableLoader(_loader(0), seed=3), 6))
    np.random.rand()
    by_workers = list(itertools.islice(ResumableLoader(_loader(2), seed=3), 6))
    assert in_process == by_workers
    resumed = ResumableLoader(_loader(0), seed=3)
    resumed.batch_sampler.fast_forward(4)
    assert list(itertools.islice(resumed, 2)) == in_process[4:]
    other = list(itertools.islice(ResumableLoader(_loader(0), seed=4), 6))
    assert [batch[0] for batch in other] == [batch[0] for batch in in_process] and other != in_process


def test_workers_start_with_the_first_batch() -> None:
    loader = ResumableLoader(_loader(1, persistent_workers=True), seed=0)
    batches = iter(loader)
    assert loader._iterator is None
    next(batches)
    assert loader._iterator is not None


def test_workers_end_with_their_loop() -> None:
    loop = SimpleNamespace(dataloader=ResumableLoader(_loader(2, persistent_workers=True), seed=0))
    loop.runner = SimpleNamespace(loop=loop)  # as loops and runners refer to each other
    loop.dataloader_iterator = iter(loop.dataloader)
    others = set(multiprocessing.active_children())
    next(loop.dataloader_iterator)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    end_workers(loop, None)
    assert not any(worker.is_alive() for worker in workers)


def test_workers_ignore_the_signals_of_schedulers() -> None:
    built = _loader(1)
    shield_workers(built)
    loader = ResumableLoader(built, seed=0)
    batches = DataLoader.__iter__(loader)
    first = next(batches)
    (worker,) = batches._workers
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert [first, *itertools.islice(batches, 5)] == list(itertools.islice(ResumableLoader(_loader(0), seed=0), 6))
    assert worker.is_alive()


@pytest.mark.slow
def test_workers_end_with_the_program() -> None:
    """Multiprocessing sends SIGTERM to the workers of a loader that a cycle keeps alive, and waits for them."""
    program = """
from torch.utils.data import DataLoader
from centermask.engine.resumable_loader import shield_workers
loader = DataLoader([1, 2, 3, 4], num_workers=1, persistent_workers=True)
shield_workers(loader)
assert len(list(loader)) == 4
kept = loader, loader._iterator
kept[1].itself = kept
print('done')
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == 'done\n', done.stderr
