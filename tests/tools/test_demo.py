from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from centermask.datasets.shapes import CLASSES
from centermask.utils.errors import RunError

TOOL = Path(__file__).parents[2] / 'tools' / 'demo.py'


@pytest.fixture
def demo(monkeypatch):
    spec = importlib.util.spec_from_file_location('demo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'SPLITS', {'train': (4, 0), 'val': (3, 1)})
    return module


def test_the_config_names_the_shapes(demo):
    config = Config.fromfile(demo.CONFIG)
    assert tuple(config.train_dataloader.dataset.metainfo.classes) == CLASSES
    for mode, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = config[f'{mode}_dataloader'].dataset
        assert Path(dataset.data_root) / dataset.ann_file == demo.DATA / split / 'annotations.json'


def test_only_data_that_is_missing_is_drawn(demo, tmp_path, capsys):
    demo.make_data(tmp_path)
    first = (tmp_path / 'val' / 'annotations.json').stat().st_mtime_ns
    demo.SPLITS['train'] = (5, 0)
    demo.make_data(tmp_path)
    assert len(json.loads((tmp_path / 'train' / 'annotations.json').read_text())['images']) == 5
    assert (tmp_path / 'val' / 'annotations.json').stat().st_mtime_ns == first
    assert 'val is there' in capsys.readouterr().out


def test_other_data_reach_the_config(demo, tmp_path):
    config = Config.fromfile(demo.CONFIG)
    config.merge_from_dict(dict(option.split('=') for option in demo.data_options(tmp_path)))
    for mode in ('train', 'val', 'test'):
        assert config[f'{mode}_dataloader'].dataset.data_root == f'{tmp_path}/'
    for mode in ('val', 'test'):
        assert config[f'{mode}_evaluator'].ann_file == f'{tmp_path}/val/annotations.json'


def test_the_last_checkpoint_is_found_in_a_moved_folder(demo, tmp_path):
    with pytest.raises(RunError, match='last_checkpoint is missing'):
        demo.last_checkpoint(tmp_path)
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/iter_8.pth')
    with pytest.raises(RunError, match=r'iter_8\.pth is missing'):
        demo.last_checkpoint(tmp_path)
    (tmp_path / 'iter_8.pth').touch()
    assert demo.last_checkpoint(tmp_path) == tmp_path / 'iter_8.pth'


@pytest.fixture
def stand_in(demo, tmp_path, monkeypatch):
    """Training and test that do nothing but leave the files of a model that finds nothing."""

    def call(what, tool, *args, options):
        work_dir = tmp_path / 'run'
        if tool == 'train.py':
            scalars = work_dir / '1' / 'vis_data' / 'scalars.json'
            scalars.parent.mkdir(parents=True)
            scalars.write_text(json.dumps(dict(loss=1.0, time=0.1, step=1)) + '\n')
            (work_dir / 'iter_1.pth').touch()
            (work_dir / 'last_checkpoint').write_text(str(work_dir / 'iter_1.pth'))
        else:
            assert args[0] == work_dir / 'iter_1.pth'
            prefix = next(option.split('=')[1] for option in options if 'outfile_prefix' in option)
            Path(prefix).parent.mkdir()
            Path(f'{prefix}.bbox.json').write_text('[]')
            Path(f'{prefix}.segm.json').write_text('[]')
            root = f'data_root={str(tmp_path / "data")!r}'
            dataset = f"{root}, ann_file='val/annotations.json', data_prefix=dict(img='val/images/')"
            (work_dir / 'test' / 'config.py').write_text(f'test_dataloader = dict(dataset=dict({dataset}))\n')

    monkeypatch.setattr(demo, 'call', call)


def test_an_ap_below_what_it_must_reach_is_an_error(demo, stand_in, tmp_path, capsys):
    with pytest.raises(RunError, match=r'The box AP 0\.000 is below 0\.50'):
        demo.demo(tmp_path / 'run', tmp_path / 'data')
    assert (tmp_path / 'run' / 'report' / 'report.html').is_file()
    assert 'report.html' in capsys.readouterr().out


def test_an_ap_that_is_reached_is_none(demo, stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, 'LEAST_AP', 0.0)
    demo.demo(tmp_path / 'run', tmp_path / 'data')
    assert 'box AP 0.000, mask AP 0.000 after' in capsys.readouterr().out


def test_a_failed_step_ends_the_demo(demo, tmp_path, monkeypatch):
    (tmp_path / 'train.py').write_text('import sys; sys.exit(3)')
    monkeypatch.setattr(demo, 'TOOLS', tmp_path)
    with pytest.raises(RunError, match='training ended with exit code 3'):
        demo.call('training', 'train.py', options=[])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_training_too(tmp_path, number):
    """With a training that only says its process id and waits."""
    (tmp_path / 'train.py').write_text(
        'import os, pathlib, time\n'
        'pathlib.Path("pid.part").write_text(str(os.getpid()))\n'
        'os.rename("pid.part", "pid")\n'
        'time.sleep(100)\n'
    )
    (tmp_path / 'start.py').write_text(
        # A shell's background jobs, of which the tests may be one, are deaf to it.
        'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'import sys; from pathlib import Path\n'
        f'sys.path.insert(0, {str(TOOL.parent)!r})\n'
        'import demo\n'
        'demo.TOOLS, demo.SPLITS = Path.cwd(), {"train": (1, 0), "val": (1, 1)}\n'
        'sys.exit(demo.run(demo.main))\n'
    )
    started = subprocess.Popen(
        [sys.executable, 'start.py'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / 'pid').exists():
        assert started.poll() is None, started.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    training = int((tmp_path / 'pid').read_text())
    started.send_signal(number)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    assert errors.strip().splitlines()[-1] == 'error: Interrupted: the same command goes on from the last checkpoint'
    assert 'Traceback' not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
