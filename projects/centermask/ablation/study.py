"""Train what is missing of the ablation, several trainings side by side, and gather what all reached."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from tqdm import tqdm

from centermask.ablation.rows import Row, row_config
from centermask.datasets.shapes import DEMO, Layout, is_there, make_dataset
from centermask.engine.configs import load_config
from centermask.engine.cli import require_writable
from centermask.utils.errors import InputError, RunError
from centermask.report.history import read_history

WIDE = Layout(320, (8.0, 160.0))  # from 16 pixels to the whole picture
# Split: number of pictures, seed, layout. The backbone starts from other, smaller pictures.
PICTURES = {
    'train': (1500, 0, WIDE),
    'val': (150, 1, WIDE),
    'start/train': (2000, 2, DEMO),
    'start/val': (8, 3, DEMO),
}


@dataclass
class Study:
    """What is trained, and where things are.

    Attributes:
        work_dir: gets results/ROW-SEED.json, start.pth and runs/.
        data: the made pictures.
        configs: the folder of the tables' configs.
        base: config of every row but for its changes.
        start: config of the training that the backbones start from, FCOS alone.
        jobs: trainings side by side, of one thread each.
        pictures: what is drawn, as ``PICTURES``.
    """

    work_dir: Path
    data: Path
    configs: Path
    base: Path
    start: Path
    jobs: int = 2
    pictures: Mapping[str, tuple[int, int, Layout]] = field(default_factory=lambda: PICTURES)
    _settings: dict[str, str] = field(default_factory=dict)

    @property
    def start_weights(self) -> Path:
        return self.work_dir / 'start.pth'

    def result(self, row: Row, seed: int) -> Path:
        """The file of a training's result."""
        return self.work_dir / 'results' / f'{row.name}-{seed}.json'

    def settings(self, row: Row) -> str:
        """A digest of the config, the start and the pictures of a row; that the code is the same it can't tell."""
        if row.name not in self._settings:
            config = row_config(row, self.base, self.configs, Path('start.pth')).to_dict()
            start = {} if row.deep else load_config(self.start).to_dict()
            text = repr((config, start, sorted(self.pictures.items())))
            self._settings[row.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._settings[row.name]


class Training(NamedTuple):
    """A training to do: its title, its config and the file that it writes."""

    title: str
    config: Config
    result: Path

    @property
    def iterations(self) -> int:
        return self.config.train_cfg.max_iters


class _Running(NamedTuple):
    training: Training
    process: subprocess.Popen


Results = dict[str, dict[int, dict]]
"""Name of a row -> seed -> what its training wrote."""


def carry_out(study: Study, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """Draw the pictures and train what of these rows and seeds has no result yet.

    Raises:
        InputError: a folder can't be written, or holds results of other settings.
        RunError: a training failed.
    """
    for folder in ('results', 'runs'):
        require_writable(study.work_dir / folder, '--work-dir')
    draw(study)
    missing = [(row, seed) for seed in seeds for row in rows if read_result(study, row, seed) is None]
    if not all(row.deep for row, _ in missing) and not study.start_weights.is_file():
        print('Training of the backbone that rows start from, as the paper starts from ImageNet', flush=True)
        train_all([_start(study)], jobs=1, threads=study.jobs)
    done = len(rows) * len(seeds) - len(missing)
    print(f'{len(rows)} rows × {len(seeds)} seeds: {done} trainings are done, {len(missing)} to do', flush=True)
    train_all([_training(study, row, seed) for row, seed in missing], study.jobs, threads=1)


def draw(study: Study) -> None:
    """Draw the pictures that aren't there as they should be."""
    for split, (images, seed, layout) in study.pictures.items():
        out = study.data / split
        if not is_there(out, images, seed, layout):
            make_dataset(out, images, seed, layout)


def read_result(study: Study, row: Row, seed: int) -> dict | None:
    """What a training reached, None before it is done.

    Raises:
        InputError: the file is damaged or tells of other settings.
    """
    path = study.result(row, seed)
    try:
        result = json.loads(path.read_text())
        settings = result['settings']
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f'{path} is no result of a training: remove it, and the same command trains anew.') from error
    if settings != study.settings(row):
        raise InputError(
            f'{path} is the result of other settings, which can not stand beside new ones: '
            'remove it, or name another --work-dir.'
        )
    return result


def gather(study: Study, rows: Sequence[Row], seeds: Sequence[int]) -> Results:
    """All results that there are.

    Raises:
        InputError: as for :func:`read_result`.
    """
    found = {row.name: {seed: read_result(study, row, seed) for seed in seeds} for row in rows}
    return {name: {seed: r for seed, r in results.items() if r is not None} for name, results in found.items()}


def _with_data(config: Config, data: Path) -> Config:
    for mode in ('train', 'val', 'test'):
        config[f'{mode}_dataloader'].dataset.data_root = f'{data}/'
    for mode in ('val', 'test'):
        config[f'{mode}_evaluator'].ann_file = f'{data}/val/annotations.json'
    return config


def _start(study: Study) -> Training:
    config = _with_data(load_config(study.start), study.data / 'start')
    config.model.roi_head = None
    config.optim_wrapper = load_config(study.base).optim_wrapper
    config.work_dir = str(study.work_dir / 'runs' / 'start')
    return Training('backbone to start from', config, study.start_weights)


def _training(study: Study, row: Row, seed: int) -> Training:
    config = _with_data(row_config(row, study.base, study.configs, study.start_weights), study.data)
    config.randomness = dict(seed=seed)
    config.work_dir = str(study.work_dir / 'runs' / f'{row.name}-{seed}')
    config.settings = study.settings(row)
    return Training(f'{row.title}, seed {seed}', config, study.result(row, seed))


def train_all(trainings: Sequence[Training], jobs: int, threads: int) -> None:
    """Train, so many side by side, and show progress and the time left.

    Raises:
        RunError: a training failed; the others are ended then, as at an interruption.
    """
    waiting = list(trainings)
    running: list[_Running] = []
    begun = time.monotonic()
    total = sum(training.iterations for training in trainings)
    # By the process, not by the terminal: a log gets a line a minute.
    interval = 0.5 if sys.stderr.isatty() else 60
    try:
        with tqdm(total=total, unit='iteration', mininterval=interval, maxinterval=interval, smoothing=0) as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    training = waiting.pop(0)
                    running.append(_Running(training, _begin(training, threads)))
                time.sleep(0.2)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    bar.write(f'{(time.monotonic() - begun) / 60:5.1f} min  {one.training.title}: {_finish(one)}')
                ahead = sum(training.iterations for training in waiting) + sum(_left(one.training) for one in running)
                bar.update(total - ahead - bar.n)
    finally:
        for one in running:
            os.killpg(one.process.pid, signal.SIGTERM)
            one.process.wait()


def _begin(training: Training, threads: int) -> subprocess.Popen:
    folder = Path(training.config.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*/vis_data/scalars.json'):  # of a training that was interrupted
        old.unlink()
    training.config.dump(folder / 'training.py')
    command = [sys.executable, '-m', 'centermask.ablation.training', folder / 'training.py', training.result]
    # The spin count as in tools/demo.py: threads that wait leave the core to the loader's process.
    environ = {'GOMP_SPINCOUNT': '20000', **os.environ, 'OMP_NUM_THREADS': str(threads)}
    with (folder / 'log.txt').open('w') as log:
        return subprocess.Popen(
            list(map(str, command)), env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _finish(one: _Running) -> str:
    """What an ended training reached, in words."""
    if one.process.returncode or not one.training.result.is_file():
        log = Path(one.training.config.work_dir) / 'log.txt'
        raise RunError(
            f'The training of {one.training.title} ended with exit code {one.process.returncode}: '
            f'mend what {log} says at its end and run the same command again, which goes on.'
        )
    if one.training.result.suffix != '.json':
        return 'done'
    result = json.loads(one.training.result.read_text())
    reached = [f'{kind} {result[kind]:.1f}' for kind in ('box AP', 'mask AP') if kind in result]
    return f'{", ".join(reached)}, {result["seconds"]} s'


def _left(training: Training) -> int:
    """Iterations that a running training still has to do."""
    try:
        return training.iterations - max(read_history(Path(training.config.work_dir)).training, default=0)
    except InputError:  # nothing logged yet
        return training.iterations
