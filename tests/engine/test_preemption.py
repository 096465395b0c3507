"""SIGTERM and SIGINT during a training."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from centermask.engine.checkpoint_hook import AtomicCheckpointHook
from centermask.engine.preemption import InterruptionHook


def test_signals_are_remembered_and_handlers_restored(capfd: pytest.CaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interruption = InterruptionHook()
    with interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat it
    assert interruption.number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().err == '\nSIGTERM: the training ends after this iteration; Ctrl-C again ends it at once\n'


def test_a_second_ctrl_c_ends_at_once(capfd: pytest.CaptureFixture) -> None:
    with InterruptionHook():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert 'SIGINT: the training ends after this iteration; Ctrl-C again ends it at once' in capfd.readouterr().err


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interruption = InterruptionHook()
        with interruption:
            os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.number and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(('saved_at', 'ends'), [(8, True), (6, False)])
def test_a_validation_ends_early_only_after_a_checkpoint_of_its_iteration(
    saved_at: int, ends: bool, tmp_path: Path
) -> None:
    interruption = InterruptionHook()
    interruption.number = signal.SIGTERM
    hook = AtomicCheckpointHook(by_epoch=False)
    hook.last_ckpt = str(tmp_path / f'iter_{saved_at}.pth')
    lines: list[str] = []
    runner = SimpleNamespace(hooks=[hook], iter=8, logger=SimpleNamespace(info=lines.append))
    if ends:
        with pytest.raises(SystemExit) as end:
            interruption.after_val_iter(runner, 0)
        assert end.value.code == 143
        assert lines == [f'Ended by SIGTERM after iteration 8: --resume continues from {hook.last_ckpt}.']
    else:
        interruption.after_val_iter(runner, 0)
        assert not lines
