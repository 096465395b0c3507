"""Small trainings in processes of their own, which come by forking: libraries are imported once for all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from centermask.datasets.shapes import make_dataset
from centermask.engine.configs import build_runner, load_config
from centermask.utils.errors import RunError

WIDTH = 32

# The demo's model, narrower. Four RoIs an image at most are sampled from more, so that it matters which.
OPTIONS = {
    'model.neck.out_channels': WIDTH,
    'model.bbox_head.in_channels': WIDTH,
    'model.bbox_head.feat_channels': WIDTH,
    'model.bbox_head.stacked_convs': 1,
    'model.roi_head.mask_roi_extractor.out_channels': WIDTH,
    'model.roi_head.mask_head.num_convs': 1,
    'model.roi_head.mask_head.in_channels': WIDTH,
    'model.roi_head.mask_head.conv_out_channels': WIDTH,
    'model.roi_head.mask_iou_head.num_convs': 1,
    'model.roi_head.mask_iou_head.in_channels': WIDTH,
    'model.roi_head.mask_iou_head.conv_out_channels': WIDTH,
    'model.roi_head.mask_iou_head.fc_out_channels': WIDTH,
    'model.train_cfg.sampler.num': 4,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 2,
    'train_cfg.val_interval': 7,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'randomness.deterministic': True,
    'env_cfg.mp_cfg.opencv_num_threads': 0,
}


def forked(action: Callable[[], None], log: Path) -> int:
    """Run something in a new process that writes to ``log``, and return its id."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        with log.open('a') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Training:
    """A training of some iterations on made shapes, in one process or several.

    Args:
        config: the demo's.
        folder: where the data are, made if they aren't there, and the logs.
        work_dir: of this training.
        iterations: how many.
        interval: iterations between checkpoints.
        processes: how many.
        hook: what else the runner calls.
    """

    def __init__(
        self,
        config: str,
        folder: Path,
        work_dir: Path,
        iterations: int,
        interval: int,
        processes: int = 1,
        hook: Hook | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.work_dir = work_dir
        self.iterations = iterations
        self.interval = interval
        self.processes = processes
        self.hook = hook
        self.running: list[int] = []
        if not (folder / 'shapes').is_dir():
            os.waitpid(forked(self._make_data, folder / 'data.log'), 0)

    def _make_data(self) -> None:
        make_dataset(self.folder / 'shapes/val', 2, seed=1)
        make_dataset(self.folder / 'shapes/train', 9, seed=0)

    def start(self) -> None:
        """Start it, or go on with it where it was."""
        port = _free_port()
        log = self.folder / f'{self.work_dir.name}.log'
        self.running = [forked(lambda rank=rank: self._run(rank, port), log) for rank in range(self.processes)]  # type: ignore[misc]

    def send(self, number: int, rank: int = 0) -> None:
        """Send a signal to one of its processes."""
        os.kill(self.running[rank], number)

    def ended(self) -> bool:
        """Whether its first process has ended; it is then reaped by :meth:`wait` all the same."""
        return os.waitid(os.P_PID, self.running[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> list[int]:
        """Wait for its end and return the exit codes, negative where a signal ended a process."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in self.running]
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # workers that outlive a killed process for some seconds
        self.running = []
        return codes

    def finish(self) -> dict:
        """Go on to its end and return the last checkpoint.

        Raises:
            RunError: it didn't come to its end.
        """
        self.start()
        codes = self.wait()
        last = self.work_dir / f'iter_{self.iterations}.pth'
        if any(codes) or not last.is_file():
            raise RunError(f'The training in {self.work_dir} ended with {codes}: see {self.folder}/*.log.')
        return torch.load(last)

    def remove_checkpoints(self) -> None:
        """Begin it anew next time, or make room."""
        for file in self.work_dir.glob('*.pth'):
            file.unlink()

    def _run(self, rank: int, port: int) -> None:
        options = {
            **OPTIONS,
            **{f'{name}_dataloader.dataset.data_root': f'{self.folder}/shapes/' for name in ('train', 'val', 'test')},
            'val_evaluator.ann_file': f'{self.folder}/shapes/val/annotations.json',
            'train_cfg.max_iters': self.iterations,
            'default_hooks.checkpoint.interval': self.interval,
        }
        cfg = load_config(self.config, options)
        cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
        cfg.work_dir = str(self.work_dir)
        cfg.resume = True
        if self.processes > 1:
            cfg.launcher = 'pytorch'
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(self.processes))
            os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
        torch.set_num_threads(1)
        runner: Runner = build_runner(cfg)
        if self.hook is not None:
            runner.register_hook(self.hook)
        runner.train()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]
