"""The bar on a terminal, and what is printed above it."""

import os
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub, MMLogger

from centermask.engine.progress_bar import ProgressBarHook


def _runner(tmp_path: Path, with_loss: bool = True) -> SimpleNamespace:
    """Return what the hook knows of a runner, with a log that prints and writes a file."""
    hub = MessageHub(f'{tmp_path}')
    if with_loss:
        hub.update_scalar('train/loss', 1.25)
    processor = SimpleNamespace(get_log_after_iter=lambda *_: ({}, 'Iter(train) [1/2]'))
    return SimpleNamespace(
        logger=MMLogger(f'{tmp_path}', log_file=str(tmp_path / 'log')),
        message_hub=hub,
        log_processor=processor,
        visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None),
        iter=0,
        max_iters=2,
        val_dataloader=range(3),
        train_dataloader=range(9),
    )


def _train(runner: SimpleNamespace) -> None:
    """Do an iteration and a validation, in the order of the hooks."""
    hook, log = ProgressBarHook(), LoggerHook(interval=1)
    with hook:
        hook.before_run(runner)
        hook.before_train(runner)
        log.after_train_iter(runner, 0)
        runner.logger.info('Saving checkpoint')
        hook.after_train_iter(runner, 0)
        hook.before_val(runner)
        hook.after_val_iter(runner, 0)
        hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.1, 'coco/segm_mAP': 0.234})
        hook.after_val(runner)
        hook.after_train_iter(runner, 1)
    runner.logger.info('after the bar')


def _shown_on_a_terminal(tmp_path: Path, with_loss: bool = True) -> str:
    ours, its = os.openpty()
    with open(its, 'w') as stdout, redirect_stdout(stdout):
        runner = _runner(tmp_path, with_loss)
        _train(runner)
        assert runner.logger.handlers[0].stream is stdout
    shown = b''
    with open(ours, 'rb', buffering=0) as terminal, suppress(OSError):  # which ends it
        while part := terminal.read(4096):
            shown += part
    return shown.decode()


def test_on_a_terminal(tmp_path: Path) -> None:
    shown = _shown_on_a_terminal(tmp_path)
    assert 'Training: 100%' in shown and '2/2 [' in shown and 'loss 1.250, mask AP 0.234' in shown
    assert 'Validation:' in shown
    assert 'Iter(train)' not in shown and 'Saving checkpoint' in shown
    assert shown.splitlines()[-1].endswith('after the bar') and 'Training' not in shown.splitlines()[-1]
    assert 'Iter(train) [1/2]' in (tmp_path / 'log').read_text()


def test_without_a_runtime_info_hook(tmp_path: Path) -> None:
    """It is what notes the losses, and a config may leave it out."""
    shown = _shown_on_a_terminal(tmp_path, with_loss=False)
    assert '2/2 [' in shown and ', mask AP 0.234' in shown and 'loss' not in shown


def test_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _train(_runner(tmp_path))
    shown = capsys.readouterr()
    assert 'Iter(train) [1/2]' in shown.out and 'Training' not in shown.out + shown.err
