"""The images of a training, which one that resumes meets in the same order and augmented alike."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from centermask.engine.randomness import seeded


class Draw(NamedTuple):
    """A batch to load: the run's seed, the iteration that it is for, and which images."""

    seed: int
    iteration: int
    indices: list[int]


def load(dataset: Any, draw: Draw) -> list:
    """Load a batch, the augmentation of each image being a function of the seed, the iteration and its index."""
    samples = []
    for index in draw.indices:
        with seeded(draw.seed, draw.iteration, index):
            samples.append(dataset[index])
    return samples


class Draws:
    """The batches of a batch sampler, with their iterations.

    Args:
        batches: what draws them.
        seed: the run's seed.
        ahead: how many batches are drawn before the one that is trained on at most.

    Raises:
        ValueError: the sampler of ``batches`` has no seed to save.
    """

    def __init__(self, batches: BatchSampler, seed: int, ahead: int) -> None:
        self.batches = batches
        self.sampler: Any = batches.sampler  # MMEngine's hooks and its scaling of learning rates read these
        if not hasattr(self.sampler, 'seed'):
            raise ValueError(f'a training needs a sampler that has a seed, as InfiniteSampler, not {self.sampler!r}')
        self.batch_size = batches.batch_size
        self.drop_last = batches.drop_last
        self.seed = seed
        self.iteration = 0
        self._waiting: deque[tuple[int, list]] = deque([(0, self._buckets())], maxlen=ahead + 2)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Draw]:
        for indices in self.batches:
            draw = Draw(self.seed, self.iteration, indices)
            self.iteration += 1
            self._waiting.append((self.iteration, self._buckets()))
            yield draw

    @property
    def endless(self) -> bool:
        """Whether batches can be passed over: MMEngine counts the ends of what has one."""
        return isinstance(self.sampler, InfiniteSampler)

    def state(self, iteration: int) -> dict:
        """What must be saved to go on from an iteration: the sampler's seed, and images drawn that wait for others."""
        waiting = next((buckets for number, buckets in self._waiting if number == iteration), [])
        return {'seed': self.sampler.seed, 'waiting': waiting}

    def go_on(self, iteration: int, states: list[dict] | None, rank: int, world_size: int) -> bool:
        """Pass over the batches before an iteration; no image is loaded for it.

        Args:
            iteration: the next one.
            states: what :meth:`state` gave in each process, None for a checkpoint without.
            rank, world_size: of this process.

        Returns:
            Whether the images are those of the training that wrote the states.
        """
        known = states is not None and len(states) == world_size
        if states:
            self.sampler.seed = states[0]['seed']
        if isinstance(self.batches, AspectRatioBatchSampler) and states and known:
            waiting = [list(bucket) for bucket in states[rank]['waiting']]
            self.batches._aspect_ratio_buckets = waiting
            self._drop(iteration * self.batch_size + sum(map(len, waiting)))
        elif type(self.batches) is BatchSampler:
            self._drop(iteration * self.batch_size)
        else:  # which looks at the size of every image
            deque(itertools.islice(iter(self.batches), iteration), maxlen=0)
        self.iteration = iteration
        self._waiting.append((iteration, self._buckets()))
        return known

    def _drop(self, images: int) -> None:
        deque(itertools.islice(self.sampler.indices, images), maxlen=0)

    def _buckets(self) -> list[list[int]]:
        """Images that wait for others of their orientation; a full bucket is being handed out."""
        buckets = getattr(self.batches, '_aspect_ratio_buckets', [])
        return [[] if len(bucket) == self.batch_size else list(bucket) for bucket in buckets]


class TrainingLoader(DataLoader):
    """A training's data loader by way of :class:`Draws`, whose workers start when the first batch is asked for.

    MMEngine's start when the loader is built, and would load the training's first images before it resumes.

    Args:
        built: the loader that MMEngine built.
        seed: the run's seed.
    """

    def __init__(self, built: DataLoader, seed: int) -> None:
        ahead = built.num_workers * (built.prefetch_factor or 0)
        # torch asks a data set for a whole batch, where it has this method.
        setattr(built.dataset, '__getitems__', partial(load, built.dataset))  # noqa: B010 (mypy knows no such attribute)
        self.draws = Draws(built.batch_sampler, seed, ahead)  # type: ignore[arg-type]
        names = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context')
        more = ('prefetch_factor', 'persistent_workers', 'pin_memory_device')
        super().__init__(
            built.dataset,
            batch_sampler=self.draws,  # type: ignore[arg-type]
            **{name: getattr(built, name) for name in (*names, *more)},
        )

    @property  # type: ignore[override]
    def batch_size(self) -> int:
        """What the learning rate is scaled by; torch, given batches instead of images, would say None."""
        return self.draws.batch_size

    @batch_size.setter
    def batch_size(self, _: int | None) -> None:
        pass

    def __iter__(self) -> Iterator:  # type: ignore[override]
        yield from super().__iter__()


# Whether this program is at its end; workers see it, being other processes.
_ending = multiprocessing.RawValue('b', 0)


@atexit.register
def _let_workers_end() -> None:
    """Runs before multiprocessing's own end, which sends SIGTERM to workers and waits for them, for ever if deaf."""
    _ending.value = 1


def leave_signals_to_the_run(loader: DataLoader) -> None:
    """Make a loader's workers deaf to what schedulers and Ctrl-C send to all processes: the run ends them itself."""
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn, _ending)


def _start_worker(start: Callable[[int], None] | None, ending: Any, worker: int) -> None:
    def end_with_the_run(*_: object) -> None:
        if ending.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, end_with_the_run)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if start is not None:
        start(worker)


def end_workers(*loops: Any) -> None:
    """Let the workers of loops that have ended, or are None, go at once.

    Left to the runner they go with it, a cycle of garbage of which Python closes the queues first: the workers aren't
    told any more, and torch waits 5 seconds for each.
    """
    for loop in filter(None, loops):
        vars(loop).pop('dataloader_iterator', None)
        loop.dataloader._iterator = None
