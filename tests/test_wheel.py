"""The wheel, installed in a fresh environment and used in another folder: the command, models by name, and mim."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = 'centermask-lite-star_v2-19-slim_shapes'
ENVIRON = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment with the wheel and, by their path, this one's packages."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'  # else files of earlier builds in build/ would be packed too
    files = subprocess.run(['git', 'ls-files', '-z'], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for file in filter(None, files.stdout.split('\0')):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / file, source / file, follow_symlinks=False)
    pip = [sys.executable, '-m', 'pip']
    wheel = [*pip, 'wheel', '-q', '--no-deps', '--no-build-isolation', '--no-index', '-w', folder, source]
    subprocess.run(wheel, check=True)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
    install = [*pip, '--python', folder / 'venv/bin/python', 'install', '-q', '--no-deps', '--no-index']
    subprocess.run([*install, *folder.glob('centermask-*.whl')], check=True, env=ENVIRON)
    (site,) = (folder / 'venv/lib').glob('python3*/site-packages')
    pins = [path for path in sys.path if path.endswith('site-packages')]
    # MMEngine imports distutils, which Python 3.12 has from setuptools, by a .pth file that isn't read here.
    (site / 'pins.pth').write_text('\n'.join([*pins, 'import _distutils_hack; _distutils_hack.add_shim()']))
    return folder / 'venv/bin'


@pytest.fixture
def command(environment: Path, tiny_config: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a program of the environment in a folder with the data of the demo's config; return what it prints."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/shapes').symlink_to(tiny_config.parent / 'shapes')

    def run(program: str, *args: str | Path) -> str:
        done = subprocess.run(
            [environment / program, *args], cwd=tmp_path, env=ENVIRON, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_command(command: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    origin = 'import importlib.util; print(importlib.util.find_spec("centermask").origin)'
    assert 'site-packages' in command('python', '-c', origin)
    assert 'Detect objects' in command('centermask', '-h')
    command('centermask', 'predict', 'data/shapes/val/images', CONFIG, tiny_run / 'iter_2.pth', '--out-dir', 'out')
    assert len(list((tmp_path / 'out/vis').iterdir())) == 3


def test_mim(command: Callable[..., str], tiny_run: Path, tmp_path: Path) -> None:
    """``mim train``, ``test`` and ``run`` find configs and tools in the package."""
    options = ['train_cfg.max_iters=1', 'train_dataloader.batch_size=1', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'default_hooks.checkpoint.interval=1']
    train = ['train', 'centermask', f'{CONFIG}.py', '--launcher', 'pytorch', '--gpus', '1', '--work-dir', 'run']
    command('python', '-m', 'mim', *train, '--cfg-options', *options)
    assert (tmp_path / 'run/iter_1.pth').is_file()
    out = command('python', '-m', 'mim', 'test', 'centermask', f'{CONFIG}.py', '--checkpoint', 'run/iter_1.pth')
    assert 'segm_mAP' in out
    check = ['run', 'centermask', 'check_dataset', 'data/shapes/val/annotations.json', 'data/shapes/val/images']
    assert 'Nothing is wrong.' in command('python', '-m', 'mim', *check)
