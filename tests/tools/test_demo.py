"""tools/demo.py"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config

from centermask.datasets.coco import innermost
from centermask.datasets.shapes import CLASSES, dataset_exists
from centermask.report import Report
from centermask.utils.errors import RunError

TOOL = Path(__file__).parents[2] / 'tools' / 'demo.py'


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return the command's module, with small data, in an empty folder."""
    spec = importlib.util.spec_from_file_location('demo', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'SPLITS', {'train': (2, 0), 'val': (1, 1)})
    monkeypatch.chdir(tmp_path)
    return module


def test_config_names_the_data(demo: ModuleType) -> None:
    config = Config.fromfile(demo.CONFIG)
    for mode, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = innermost(config[f'{mode}_dataloader'])
        assert tuple(dataset.metainfo.classes) == CLASSES
        assert Path(dataset.data_root) / dataset.ann_file == demo.DATA / split / 'annotations.json'


def test_a_training_of_another_recipe(demo: ModuleType, tmp_path: Path) -> None:
    torch.save({}, tmp_path / 'iter_900.pth')
    with pytest.raises(RunError, match='has a training of another config: remove it'):
        demo.demo(tmp_path)


@pytest.mark.parametrize(('ap', 'amx'), [(0.59, False), (0.61, True)])
def test_steps_and_least_ap(
    ap: float, amx: bool, demo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    called = []

    def call(tool: str, *args: str | Path) -> None:
        called.append(tool)
        if tool == 'train.py':
            assert ('--amp' in args) == amx
            Path('run').mkdir()
            torch.save({}, 'run/iter_3.pth')
        else:
            assert args[:3] == (Path('run/iter_3.pth'), '--work-dir', Path('run/test'))
            assert 'test_evaluator.outfile_prefix=run/test/results' in args

    monkeypatch.setattr(demo, 'call', call)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(demo, 'build_report', lambda *_: Report(Path('run/report/report.html'), {'mask': ap, 'box': 1}))
    if ap < demo.LEAST_AP:
        with pytest.raises(RunError, match=r'The mask AP 0\.590 is below 0\.60'):
            demo.demo(Path('run'))
    else:
        demo.demo(Path('run'))
    assert called == ['train.py', 'test.py']
    assert dataset_exists(demo.DATA / 'train', 2, 0)
    out = capsys.readouterr().out
    assert [line[:5] for line in out.splitlines() if line.startswith('[')] == [f'[{i}/4]' for i in (1, 2, 3, 4)]
    assert f'mask AP {ap:.3f}, box AP 1.000\nReport: run/report/report.html' in out


@pytest.mark.slow
def test_end_to_end(demo: ModuleType, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the demo with a config that trains two iterations, which reach no AP."""
    monkeypatch.setattr(demo, 'CONFIG', tiny_config)
    monkeypatch.setattr(demo, 'DATA', tiny_config.parent / 'shapes')
    monkeypatch.setattr(demo, 'SPLITS', {'train': (4, 0), 'val': (3, 1)})
    with pytest.raises(RunError, match=r'The mask AP 0\.\d+ is below 0\.60'):
        demo.demo(Path('run'))
    page = Path('run/report/report.html').read_text()
    assert '2 iterations' in page
    assert all(f'_{image.stem}"' in page for image in (tiny_config.parent / 'shapes/val/images').iterdir())


def test_a_failed_step_ends_the_demo(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'train.py').write_text('import sys; sys.exit(3)')
    monkeypatch.setattr(demo, 'TOOLS', tmp_path)
    with pytest.raises(RunError, match=r'train\.py ended with exit code 3'):
        demo.call('train.py')


def test_interrupting_the_demo_ends_the_training(tmp_path: Path) -> None:
    """The training is a script that writes its process id and waits."""
    (tmp_path / 'train.py').write_text(
        'import os, pathlib, time\n'
        'pathlib.Path("pid.part").write_text(str(os.getpid()))\n'
        'os.rename("pid.part", "pid")\n'
        'time.sleep(100)\n'
    )
    (tmp_path / 'start.py').write_text(
        'import sys; from pathlib import Path\n'
        f'sys.path.insert(0, {str(TOOL.parent)!r})\n'
        'import demo\n'
        'demo.TOOLS, demo.SPLITS = Path.cwd(), {"train": (1, 0), "val": (1, 1)}\n'
        'sys.exit(demo.run(demo.main))\n'
    )
    started = subprocess.Popen([sys.executable, 'start.py'], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / 'pid').exists():
        assert started.poll() is None, started.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    training = int((tmp_path / 'pid').read_text())
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert errors.strip().splitlines()[-1] == 'interrupted'
    assert 'Traceback' not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
