"""A data loader that starts at any iteration of a training, with the images and augmentations of that iteration."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from centermask.engine.randomness import seed_all


class BatchIndices(NamedTuple):
    """The images of a batch, and the seeds of their augmentation."""

    seed: int
    iteration: int
    indices: list[int]


def load_batch(dataset: Any, batch: BatchIndices) -> list:
    """Load the samples of a batch, each augmented by random numbers seeded by the run, the iteration and its index."""
    samples = []
    for index in batch.indices:
        seed_all(batch.seed, batch.iteration, index)
        samples.append(dataset[index])
    return samples


def _image_size(dataset: Any, index: int) -> dict:
    info = dataset.get_data_info(index)
    return {'width': info['width'], 'height': info['height']}


class ResumableBatchSampler:
    """The batches of a batch sampler with their iterations, from any iteration on.

    Args:
        batches: the batch sampler.
        seed: the run's seed.
    """

    def __init__(self, batches: BatchSampler, seed: int) -> None:
        self.batches = batches
        sampler: Any = batches.sampler
        self.sampler = sampler  # which MMEngine's DistSamplerSeedHook looks for
        if type(batches) is AspectRatioBatchSampler:  # a resumed training asks for millions of sizes
            sampler.dataset = SimpleNamespace(get_data_info=cache(partial(_image_size, sampler.dataset)))
        self.seed = seed
        self.iteration = 0
        self._skipped = 0  # batches to skip

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndices]:
        skipped, self._skipped = self._skipped, 0
        for indices in itertools.islice(self.batches, skipped, None):
            yield BatchIndices(self.seed, self.iteration, indices)
            self.iteration += 1

    @property
    def is_infinite(self) -> bool:
        """Return whether the sampler never ends, so that batches can be skipped; MMEngine counts epochs of others."""
        return isinstance(self.sampler, InfiniteSampler)

    def set_seed(self, seed: int) -> None:
        """Take another run's seed, for the order of the images too; before the first batch."""
        self.seed = seed
        if hasattr(self.sampler, 'seed'):
            self.sampler.seed = seed

    def fast_forward(self, iteration: int) -> None:
        """Start at an iteration: the batches before it are drawn and dropped, and no image of them is loaded."""
        self.iteration = self._skipped = iteration


class ResumableLoader(DataLoader):
    """A data loader over a :class:`ResumableBatchSampler`, whose workers start with the first batch.

    MMEngine asks for an iterator before it resumes; torch's would load the training's first images by then.

    Args:
        built: the loader that MMEngine built.
        seed: the run's seed.
    """

    batch_sampler: Any

    def __init__(self, built: DataLoader, seed: int) -> None:
        # torch calls this for a batch, where a data set has it.
        setattr(built.dataset, '__getitems__', partial(load_batch, built.dataset))  # noqa: B010 (unknown to mypy)
        names = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context')
        more = ('prefetch_factor', 'persistent_workers', 'pin_memory_device')
        sampler: Any = ResumableBatchSampler(built.batch_sampler, seed)  # type: ignore[arg-type]
        super().__init__(built.dataset, batch_sampler=sampler, **{key: getattr(built, key) for key in (*names, *more)})

    def __iter__(self) -> Iterator:  # type: ignore[override]
        yield from super().__iter__()


# Whether this program is exiting, in memory that its workers share.
_exiting = multiprocessing.RawValue('b', 0)


@atexit.register
def _let_workers_exit() -> None:
    """Set the flag before multiprocessing's own exit handler sends SIGTERM to workers and waits for them."""
    _exiting.value = 1


def shield_workers(loader: DataLoader) -> None:
    """Make a loader's workers ignore the signals that schedulers and Ctrl-C send to all processes of a run."""
    loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn, _exiting)


def _init_worker(init: Callable[[int], None] | None, exiting: Any, worker: int) -> None:
    def exit_with_the_run(*_: object) -> None:
        if exiting.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, exit_with_the_run)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if init is not None:
        init(worker)


def end_workers(*loops: Any) -> None:
    """End the workers of loops (or None) that have run: Python would wait 5 seconds for each at its exit."""
    for loop in filter(None, loops):
        vars(loop).pop('dataloader_iterator', None)
        loop.dataloader._iterator = None
