"""Fixtures of the whole suite."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# Several processes share two cores: threads of OpenMP that spin while they wait make the others ten times slower.
# Set before torch is imported, which reads it then; commands that tests start inherit it.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
if 'PYTEST_XDIST_WORKER' in os.environ:  # one of several workers, of which each has a core
    os.environ.setdefault('OMP_NUM_THREADS', '1')
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)

import psutil
import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from centermask import CenterMaskVisualizer

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / 'shared'

# The longest files, which begin first. With `--dist loadfile` a worker runs whole files, so that a file's fixtures are
# built once; if one of these began last, the other workers would wait for it.
LONG = (
    'soak/test_soak.py',
    'export/test_onnx.py',
    'tools/test_export.py',
    'test_real_photographs.py',
    'tools/test_original_weights.py',
    'test_other_programs.py',
    'parity/test_comparison.py',
    'test_several_processes.py',
    'tools/test_dist.py',
    'tools/test_resume.py',
    'tools/test_train.py',
    'tools/test_panoptic_training.py',
    'tools/test_test.py',
    'tools/test_compare_with_reference.py',
    'test_registries.py',
    'test_rows.py',
)


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `-n auto`: one for each usable core, with 2 GB of memory each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // 2_000_000_000))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files."""
    rank = {REPOSITORY / 'tests' / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG)))


@pytest.fixture(scope='session', autouse=True)
def mmdet_scope() -> None:
    """Set MMDetection's scope, as ``default_scope = 'mmdet'`` does in a config."""
    DefaultScope.get_instance('tests', scope_name='mmdet')


@pytest.fixture(autouse=True)
def own_visualizer() -> Iterator[None]:
    """Give each test its own visualizer; MMEngine keeps one, which writes to the folder of its first run."""
    yield
    for visualizer in (CenterMaskVisualizer, DetLocalVisualizer, Visualizer):  # MMEngine's base class lists all
        visualizer._instance_dict.clear()


@pytest.fixture(scope='session')
def shared() -> Path:
    """Return the folder of reference data beside the repository; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f'the reference data is not here: no folder {SHARED}')
    return SHARED


@pytest.fixture(scope='session')
def tools() -> Callable[[str], Callable]:
    """Return a function that loads a tool: ``tools('train')`` is the ``main`` of tools/train.py."""

    def load(name: str) -> Callable:
        spec = importlib.util.spec_from_file_location(f'tools_{name}', REPOSITORY / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.fixture(scope='session')
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a config of the demo's model that trains 2 iterations on 4 images and is tested on 3, in 2 s."""
    from centermask.datasets.shapes import make_dataset

    folder = tmp_path_factory.mktemp('tiny')
    make_dataset(folder / 'shapes/train', 4, seed=0)
    make_dataset(folder / 'shapes/val', 3, seed=1)
    config = folder / 'tiny.py'
    config.write_text(f"""
_base_ = '{REPOSITORY}/configs/demo/centermask-lite-star_v2-19-slim_shapes.py'
data = dict(data_root='{folder}/shapes/')
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(ann_file='{folder}/shapes/val/annotations.json')
test_evaluator = val_evaluator
model = dict(test_cfg=dict(score_thr=0.001, max_per_img=30))  # detects something without training
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=3))
""")
    return config


@pytest.fixture(scope='session')
def tiny_run(tiny_config: Path, tools: Callable[[str], Callable], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the work folder of a training of ``tiny_config``, with iter_1.pth and iter_2.pth."""
    work_dir = tmp_path_factory.mktemp('tiny_run')
    tools('train')([str(tiny_config), '--work-dir', str(work_dir)])
    return work_dir
