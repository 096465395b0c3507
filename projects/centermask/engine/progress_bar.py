"""A bar on a terminal with the progress of a training or test, in place of the log's lines about it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

AVERAGED = 20  # iterations, for the loss
FIGURES = {'coco/segm_mAP': 'mask AP', 'coco/bbox_mAP': 'box AP'}
"""Figures of a validation; the bar shows the first that there is."""


class _Bar(tqdm):
    monitor_interval = 0  # tqdm's thread may hold a lock while a data loader's worker is forked


class _AboveBars:
    """A stream whose lines are printed above the bars."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        _Bar.write(text, file=self._stream, end='')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_shown(record: logging.LogRecord) -> bool:
    """Return whether a line of the log says what the bar doesn't."""
    return not (record.module == 'logger_hook' and record.funcName.endswith('_iter'))


class ProgressBarHook(Hook):
    """Shows bars where stdout is a terminal, from the start of a run to the end of a ``with`` block around it.

    A training's bar has its iterations, rate, time left and loss, and the AP of the last validation; a test's the
    batches. The log's lines of the same go to its file alone.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._shown = False
        self._bars: list[_Bar] = []  # the outermost first
        self._tested: list[str] = []
        self._handlers: list[tuple[logging.StreamHandler, Any]] = []  # of the log, with their own streams

    def __enter__(self) -> None:
        self._shown = is_main_process() and sys.stdout.isatty()

    def __exit__(self, *_: object) -> None:
        self._shown = False
        while self._bars:
            self._close()
        for handler, stream in self._handlers:
            handler.removeFilter(_is_shown)
            handler.setStream(stream)
        self._handlers = []

    def _open(self, text: str, total: int, initial: int = 0, leave: bool = True) -> None:
        if self._shown:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns  # 0 where nobody has set them
            width = dict(dynamic_ncols=True) if columns else dict(ncols=80, nrows=24)
            self._bars.append(_Bar(None, text, total, leave, sys.stdout, initial=initial, smoothing=0, **width))

    def _advance(self) -> None:
        if self._bars:
            self._bars[-1].update()

    def _close(self) -> None:
        if self._bars:
            self._bars.pop().close()

    def before_run(self, runner: Runner) -> None:
        for handler in runner.logger.handlers if self._shown else ():
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                self._handlers.append((handler, handler.stream))
                handler.addFilter(_is_shown)
                handler.setStream(_AboveBars(handler.stream))

    def before_train(self, runner: Runner) -> None:
        self._open('Training', runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self._bars:
            losses = runner.message_hub.log_scalars.get('train/loss')  # none without the config's RuntimeInfoHook
            loss = [f'loss {losses.mean(AVERAGED):.3f}'] if losses else []
            self._bars[-1].set_postfix_str(', '.join(loss + self._tested), refresh=False)
        self._advance()

    def before_val(self, runner: Runner) -> None:
        self._open('Validation', len(runner.val_dataloader), leave=not self._bars)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None) -> None:
        self._advance()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._tested = [f'{name} {metrics[key]:.3f}' for key, name in FIGURES.items() if metrics and key in metrics][:1]

    def after_val(self, runner: Runner) -> None:
        self._close()

    def before_test(self, runner: Runner) -> None:
        self._open('Test', len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        self._advance()

    def after_test(self, runner: Runner) -> None:
        self._close()
