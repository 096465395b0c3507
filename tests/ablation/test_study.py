"""Training what is missing: resumption, damaged results, failures, and the whole once on a few pictures."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.ablation import study as module
from centermask.ablation.rows import ROWS, choose
from centermask.ablation.study import Study, Training, carry_out, gather, read_result, train_all
from centermask.utils.errors import InputError, RunError


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the trainings, which write what they are called; the names of what was trained."""
    names: list[str] = []

    def fake(trainings: list[Training], jobs: int, threads: int) -> None:
        for training in trainings:
            names.append(training.result.stem)
            result = {'box AP': 1.0, 'levels': {}, 'seconds': 1, 'settings': training.config.get('settings')}
            training.result.write_text(json.dumps(result))

    monkeypatch.setattr(module, 'train_all', fake)
    return names


def test_only_what_is_missing_is_trained(study: Study, trained: list[str]) -> None:
    rows = choose(['fcos', 'sam'])
    carry_out(study, rows, [0, 1])
    assert trained == ['start', 'fcos-0', 'sam-0', 'fcos-1', 'sam-1']
    trained.clear()
    carry_out(study, rows, [0, 1])
    assert not trained
    study.result(rows[1], 0).unlink()
    carry_out(study, rows, [0, 1, 2])
    assert trained == ['sam-0', 'fcos-2', 'sam-2']
    assert {name: sorted(found) for name, found in gather(study, rows, [0, 1, 5]).items()} == {
        'fcos': [0, 1],
        'sam': [0, 1],
    }


def test_deep_rows_need_no_start(study: Study, trained: list[str]) -> None:
    carry_out(study, choose(['v1']), [0])
    assert trained == ['v1-0']


def test_trainings_of_a_seed_have_its_data(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Training] = []
    monkeypatch.setattr(module, 'train_all', lambda trainings, *_, **__: seen.extend(trainings))
    carry_out(study, choose(['fcos', 'sam']), [4])
    start, *rows = (training.config for training in seen)
    assert start.model.roi_head is None
    assert start.train_dataloader.dataset.data_root == f'{study.data}/start/'
    assert [config.randomness.seed for config in rows] == [4, 4]
    assert {config.train_dataloader.dataset.data_root for config in rows} == {f'{study.data}/'}
    assert {config.test_evaluator.ann_file for config in rows} == {f'{study.data}/val/annotations.json'}


def test_results_of_other_settings_are_refused(study: Study, trained: list[str]) -> None:
    rows = choose(['v1'])
    carry_out(study, rows, [0])
    other = Study(**{**study.__dict__, '_settings': {}, 'pictures': {**study.pictures, 'train': (5, 0, module.WIDE)}})
    with pytest.raises(InputError, match=r'v1-0\.json is the result of other settings'):
        read_result(other, rows[0], 0)
    study.result(rows[0], 0).write_text('{"box AP": ')
    with pytest.raises(InputError, match=r'v1-0\.json is no result'):
        read_result(study, rows[0], 0)


def test_pictures_are_drawn_once(study: Study, trained: list[str]) -> None:
    carry_out(study, choose(['v1']), [0])
    first = {split: (study.data / split / 'annotations.json').stat().st_mtime_ns for split in study.pictures}
    study.pictures = {**study.pictures, 'val': (3, 1, module.WIDE)}
    module.draw(study)
    again = {split: (study.data / split / 'annotations.json').stat().st_mtime_ns for split in study.pictures}
    assert [split for split in first if first[split] != again[split]] == ['val']
    made = json.loads((study.data / 'train' / 'annotations.json').read_text())
    assert {image['width'] for image in made['images']} == {320}


def test_a_failed_training_ends_the_others(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = choose(['v1', 'v1-residual'])
    trainings = [module._training(study, row, 0) for row in rows]
    (tmp_path / 'centermask' / 'ablation').mkdir(parents=True)
    for folder in ('centermask', 'centermask/ablation'):
        (tmp_path / folder / '__init__.py').touch()
    (tmp_path / 'centermask/ablation/training.py').write_text(
        'import os, pathlib, sys, time\n'
        'folder = pathlib.Path(sys.argv[1]).parent\n'
        '(folder / "pid").write_text(str(os.getpid()))\n'
        'if "residual" not in str(folder):\n'
        '    other = folder.with_name("v1-residual-0") / "pid"\n'
        '    while not (other.exists() and other.read_text()): time.sleep(0.1)\n'
        '    sys.exit("no such thing")\n'
        'time.sleep(100)\n'
    )
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    started = time.monotonic()
    with pytest.raises(RunError, match=r'V1, deep, seed 0 ended with exit code 1: .*v1-0.log\.txt'):
        train_all(trainings, jobs=2, threads=1)
    assert time.monotonic() - started < 90
    with pytest.raises(ProcessLookupError):
        os.kill(int((Path(trainings[1].config.work_dir) / 'pid').read_text()), 0)
    assert 'no such thing' in (Path(trainings[0].config.work_dir) / 'log.txt').read_text()


@pytest.mark.slow
def test_two_rows(make: Callable[[Path], Study], tmp_path: Path) -> None:
    study = make(tmp_path)
    rows = choose(['fcos', 'eq1'])
    carry_out(study, rows, [1])
    results = gather(study, ROWS, [0, 1])
    assert {name: sorted(found) for name, found in results.items() if found} == {'fcos': [1], 'eq1': [1]}
    boxes, masks = results['fcos'][1], results['eq1'][1]
    assert 0 <= boxes['box AP'] <= 100
    assert 'mask AP' not in boxes
    assert not boxes['levels']
    assert 0 <= masks['mask AP'] <= 100
    assert list(masks['levels']) == ['P3', 'P4', 'P5']
    assert sum(masks['levels'].values()) > 0
    log = (study.work_dir / 'runs' / 'eq1-1' / 'log.txt').read_text()
    assert f'VoVNet starts from {study.start_weights}' in log
