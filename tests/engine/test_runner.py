"""The runner, where MMEngine's differs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import get_worker_info

from centermask.datasets import CenterMaskCocoDataset
from centermask.engine.configs import build_runner, load_config
from centermask.engine.runner import CenterMaskRunner


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """A function that lists the images loaded since it was last called, by this process or a worker."""
    log = tmp_path / 'log'
    prepare = CenterMaskCocoDataset.prepare_data

    def prepare_and_note(self: CenterMaskCocoDataset, idx: int) -> dict:
        with log.open('a') as file:
            file.write(f'{idx}\n' if not self.test_mode else '')
        return prepare(self, idx)

    def read() -> list[str]:
        lines = log.read_text().split()
        log.unlink()
        return lines

    monkeypatch.setattr(CenterMaskCocoDataset, 'prepare_data', prepare_and_note)
    return read


@pytest.mark.parametrize('workers', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_resuming_loads_no_image_again(
    workers: int, tiny_config: Path, tmp_path: Path, loaded: Callable[[], list[str]]
) -> None:
    options = {'train_dataloader.num_workers': workers, 'train_cfg.max_iters': 4, 'train_cfg.val_begin': 99}
    options['default_hooks.checkpoint.interval'] = 2
    cfg = load_config(tiny_config, options)
    cfg.work_dir = str(tmp_path / 'run')
    built = build_runner(cfg)
    assert isinstance(built, CenterMaskRunner)
    built.train()
    complete = loaded()
    ahead = 2 * 2 * workers  # images that a worker loads ahead, and then again after the last step
    assert len(complete) == 8 + ahead

    cfg.load_from, cfg.resume = str(tmp_path / 'run/iter_2.pth'), True
    build_runner(cfg).train()
    assert loaded() == complete[4 : 8 + ahead]
    assert get_worker_info() is None


@pytest.mark.parametrize(('limit', 'expected'), [(30, 100), (150, 150)])
def test_ap_is_of_all_detections_of_the_model(tiny_config: Path, tmp_path: Path, limit: int, expected: int) -> None:
    cfg = load_config(tiny_config, {'model.test_cfg.max_per_img': limit})
    cfg.work_dir = str(tmp_path / 'run')
    runner = build_runner(cfg)
    assert [loop.evaluator.metrics[0].max_dets for loop in (runner.val_loop, runner.test_loop)] == [expected] * 2
