"""The files on the disk while checkpoints are written."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS

from centermask.engine.checkpoint_hook import AtomicCheckpointHook
from centermask.utils.errors import RunError


class Runner:
    """Saves empty files and notes what was there; ``full`` makes it fail."""

    def __init__(self, work_dir: Path, info: dict | None = None) -> None:
        self.work_dir = str(work_dir)
        self.iter = self.epoch = 0
        self.full = False
        self.there: list[list[str]] = []
        self.logger = SimpleNamespace(info=lambda _: None)
        self.message_hub = SimpleNamespace(
            runtime_info=info or {}, get_info=lambda key: self.message_hub.runtime_info[key]
        )
        self.message_hub.update_info = self.message_hub.runtime_info.__setitem__

    def save_checkpoint(self, out_dir: str, filename: str, *args: object, **kwargs: object) -> None:
        self.there.append(self.files())
        if self.full:
            raise RunError('full')
        Path(out_dir, filename).touch()

    def files(self) -> list[str]:
        return sorted(path.name for path in Path(self.work_dir).glob('*.pth'))


def _hook(runner: Runner, **kwargs: object) -> AtomicCheckpointHook:
    hook = HOOKS.build(dict(type='AtomicCheckpointHook', by_epoch=False, **kwargs))
    hook.before_train(runner)
    return hook


def _save(hook: AtomicCheckpointHook, runner: Runner, iterations: int) -> None:
    runner.iter = iterations - 1
    hook._save_checkpoint(runner)


@pytest.mark.parametrize('kept', [1, 2])
def test_the_oldest_goes_after_the_newest_has_come(kept: int, tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    hook = _hook(runner, max_keep_ckpts=kept)
    for iterations in range(1, 5):
        _save(hook, runner, iterations)
    names = [f'iter_{i}.pth' for i in range(1, 5)]
    assert runner.there == [names[max(0, i - kept) : i] for i in range(4)]
    assert runner.files() == names[-kept:]
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_4.pth')


def test_what_fails_to_be_written_costs_nothing(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    hook = _hook(runner, max_keep_ckpts=1)
    _save(hook, runner, 1)
    runner.full = True
    with pytest.raises(RunError):
        _save(hook, runner, 2)
    assert runner.files() == ['iter_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_1.pth')


def test_half_a_file_of_a_killed_training_is_removed(tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    _save(_hook(runner, max_keep_ckpts=1), runner, 1)
    (tmp_path / '.part-iter_2.pth').touch()
    resumed = Runner(tmp_path, dict(runner.message_hub.runtime_info))
    _hook(resumed, max_keep_ckpts=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['iter_1.pth', 'last_checkpoint']


@pytest.mark.parametrize('best', ['ap', ['ap', 'ar']])
def test_the_best_goes_after_a_better_one_has_come(best: str | list[str], tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    hook = _hook(runner, interval=100, save_best=best, rule='greater')
    for iterations, ap in enumerate([0.1, 0.3, 0.2, 0.4], start=1):
        runner.iter = iterations
        hook.after_val_epoch(runner, {'ap': ap, 'ar': 0.5})
    of_ap = [f'best_ap_iter_{i}.pth' for i in (1, 2, 4)]
    of_ar = ['best_ar_iter_1.pth'] if isinstance(best, list) else []
    assert runner.files() == [of_ap[-1], *of_ar]
    assert [set(there) & set(of_ap) for there in runner.there[-2:]] == [{of_ap[0]}, {of_ap[1]}]


@pytest.mark.parametrize('name', ['kept', 'run/../kept', 'kept/photo.jpg'])
def test_nothing_outside_the_folder_is_removed(name: str, tmp_path: Path) -> None:
    """A file may name anything as its training's best checkpoint, which MMEngine removes when a better one comes."""
    (tmp_path / 'kept').mkdir()
    (tmp_path / 'kept/photo.jpg').touch()
    (tmp_path / 'run').mkdir()
    runner = Runner(tmp_path / 'run', {'best_ckpt': str(tmp_path / name), 'best_score': 0.1})
    hook = _hook(runner, save_best='ap', rule='greater')
    hook.after_val_epoch(runner, {'ap': 0.5})
    _save(hook, runner, 1)
    assert runner.files() == ['best_ap_iter_0.pth', 'iter_1.pth'] and (tmp_path / 'kept/photo.jpg').exists()


def test_arguments() -> None:
    with pytest.raises(ValueError, match='AtomicCheckpointHook has no argument intervall'):
        HOOKS.build(dict(type='AtomicCheckpointHook', intervall=5))
    with pytest.raises(ValueError, match=r"not 'latest\.pth'"):
        HOOKS.build(dict(type='AtomicCheckpointHook', filename_tmpl='latest.pth'))
