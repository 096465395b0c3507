"""Trainings under faults: full disks, damaged checkpoints, signals, losses that aren't finite."""

import itertools
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from centermask.datasets import CenterMaskCocoDataset
from centermask.engine.cli import run

SHORT = ('train_cfg.val_interval=99', 'train_cfg.val_begin=99')
NUMBERS = itertools.count()  # of trainings


@pytest.fixture
def train(tools: Callable, tiny_config: Path, capsys: pytest.CaptureFixture) -> Callable:
    """Train the tiny config in a folder, without validation; return the exit code and what is on stderr."""

    def call(work_dir: Path, *options: str, resume: bool = False) -> tuple[int, str]:
        args = [str(tiny_config), '--work-dir', str(work_dir), *(['--resume'] if resume else [])]
        # MMEngine's logger is that of the run of the same name and second, whose files are closed.
        name = f'experiment_name=run{next(NUMBERS)}'
        code = run(lambda: tools('train')([*args, '--cfg-options', name, *SHORT, *options]))
        return code, capsys.readouterr().err

    return call


@pytest.fixture(params=['limit', 'disk'])
def full(request: pytest.FixtureRequest, tiny_run: Path, tmp_path: Path) -> Iterator[tuple[Path, Callable]]:
    """A folder with a checkpoint, and what makes another one not fit there."""
    size = (tiny_run / 'iter_1.pth').stat().st_size
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    if request.param == 'limit':
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        shutil.copy(tiny_run / 'iter_1.pth', work_dir)
        yield work_dir, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        mount = ['mount', '-t', 'tmpfs', '-o', f'size={size * 3 // 2}', 'tmpfs', str(work_dir)]
        if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip('only root can make a small disk')
        shutil.copy(tiny_run / 'iter_1.pth', work_dir)
        yield work_dir, lambda: None
        subprocess.run(['umount', '-l', str(work_dir)], check=True)


def test_a_full_disk_costs_no_checkpoint(full: tuple[Path, Callable], train: Callable) -> None:
    """Where one is kept, which MMEngine would have deleted by then."""
    work_dir, fill = full
    before = (work_dir / 'iter_1.pth').read_bytes()
    fill()
    code, text = train(work_dir, 'default_hooks.checkpoint.max_keep_ckpts=1', resume=True)
    assert code == 1
    last = text.splitlines()[-1]
    assert last.startswith(f"error: {work_dir}/iter_2.pth can't be written to its end (") and 'make room there' in last
    assert (work_dir / 'iter_1.pth').read_bytes() == before
    assert [path.name for path in work_dir.glob('*iter*')] == ['iter_1.pth']


def test_the_newest_intact_checkpoint_is_resumed(tiny_run: Path, train: Callable, tmp_path: Path) -> None:
    for name in ('iter_1.pth', 'iter_2.pth'):
        shutil.copy2(tiny_run / name, tmp_path)
    with (tmp_path / 'iter_2.pth').open('r+b') as file:
        file.truncate(100_000)
    assert train(tmp_path, resume=True)[0] == 0
    (log,) = tmp_path.glob('*/*.log')
    assert f'{tmp_path}/iter_2.pth is damaged: resuming from {tmp_path}/iter_1.pth.' in log.read_text()
    complete, again = (torch.load(folder / 'iter_2.pth') for folder in (tiny_run, tmp_path))
    assert again['meta']['iter'] == 2
    for name, weight in complete['state_dict'].items():  # iteration 2 is what it was, in bits
        assert torch.equal(again['state_dict'][name], weight), name
    for name in ('iter_1.pth', 'iter_2.pth'):
        (tmp_path / name).write_bytes(b'')
    code, text = train(tmp_path, resume=True)
    assert code == 2 and f'None of the checkpoints in {tmp_path} is intact' in text.splitlines()[-1]


@pytest.mark.parametrize('number', [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_with_a_checkpoint(
    number: int, train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent while the second batch of two images is loaded."""
    prepare, loaded = CenterMaskCocoDataset.prepare_data, []

    def prepare_and_signal(self: CenterMaskCocoDataset, index: int) -> dict:
        loaded.append(index)
        if len(loaded) == 3:
            os.kill(os.getpid(), number)
        return prepare(self, index)

    monkeypatch.setattr(CenterMaskCocoDataset, 'prepare_data', prepare_and_signal)
    with pytest.raises(SystemExit) as end:
        train(tmp_path, 'train_cfg.max_iters=9', 'default_hooks.checkpoint.interval=99')
    assert end.value.code == 128 + number and len(loaded) == 4
    assert torch.load(tmp_path / 'iter_2.pth')['meta']['iter'] == 2
    (log,) = tmp_path.glob('*/*.log')
    name = signal.Signals(number).name
    assert f'Ended by {name} after iteration 2: --resume continues from {tmp_path}/iter_2.pth.' in log.read_text()


def test_losses_that_are_not_finite(train: Callable, tmp_path: Path) -> None:
    """A rate so high that all steps after the first fail: three are skipped, and the run ends."""
    rate = ('optim_wrapper.optimizer.lr=1e18', 'param_scheduler.0.start_factor=1.0')
    code, text = train(tmp_path, *rate, 'train_cfg.max_iters=9', 'default_hooks.checkpoint.interval=1')
    last = text.splitlines()[-1]
    assert code == 1 and last.startswith('error: 3 steps in a row had a loss that is not finite, up to iteration 4 (im')
    assert 'lower the learning rate or lengthen the warm-up' in last and '/train/images/' in last
    first = torch.load(tmp_path / 'iter_1.pth')['state_dict']
    for name, weight in torch.load(tmp_path / 'iter_3.pth')['state_dict'].items():
        assert torch.equal(weight, first[name]), name  # two steps skipped
    (log,) = tmp_path.glob('*/*.log')
    (line,) = [line for line in log.read_text().splitlines() if 'Iteration 2, process 0: a loss is not finite' in line]
    assert 'loss_mask_iou' in line and line.count('/train/images/') == 2
