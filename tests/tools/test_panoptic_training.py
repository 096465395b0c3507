"""Training and testing a Panoptic-CenterMask-Lite by the commands, on made data."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.release_layout import to_release

from centermask import CenterMaskVisualizer
from centermask.datasets.coco_panoptic import PanopticAnnotations
from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def data(tools: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of data that the commands make."""
    folder = tmp_path_factory.mktemp('panoptic')
    for split, images, seed in (('train', 240, 0), ('val', 24, 1)):
        made = folder / split
        tools('make_shapes_dataset')([str(made), '--images', str(images), '--seed', str(seed), '--panoptic'])
    paths = [folder / 'train' / name for name in ('panoptic.json', 'panoptic', 'semantic')]
    tools('make_semantic_masks')([*map(str, paths), '--processes', '1'])
    return folder


@pytest.fixture
def command(data: Path, tools: Callable, tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable:
    """Run train.py or test.py with the demo's panoptic config on the data; return the exit code and what it printed."""
    config = tmp_path / 'panoptic.py'
    config.write_text(f"""
_base_ = '{REPOSITORY}/configs/demo/panoptic-centermask-lite-star_v2-19-slim_shapes.py'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}/'))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
truth = dict(ann_file='{data}/val/panoptic.json', seg_prefix='{data}/val/panoptic/')
val_evaluator = [
    dict(type='CenterMaskCocoMetric', metric=['bbox', 'segm'], ann_file='{data}/val/annotations.json'),
    dict(type='PanopticQuality', classwise=True, **truth),
    dict(type='SemanticIoU', **truth),
]
test_evaluator = val_evaluator
""")

    def call(tool: str, *args: str) -> tuple[int, str]:
        CenterMaskVisualizer._instance_dict.clear()
        words = [str(config), *args, '--work-dir', str(tmp_path / tool)]
        code = run(lambda: tools(tool)(words))
        return code, ''.join(capfd.readouterr())

    return call


def figures(folder: Path) -> list[dict]:
    """Return the figures of the evaluations in a work folder, in the order of time."""
    logs = sorted(folder.rglob('*.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines() if line.startswith('{')]
    return [line for line in lines if 'coco_panoptic/PQ' in line]


def test_one_iteration(command: Callable, data: Path, tmp_path: Path) -> None:
    """It trains, is tested from a file of the release's layout, and writes what it predicts with the data's ids."""
    options = ['train_cfg.max_iters=1', 'train_cfg.val_begin=9', 'train_dataloader.batch_size=2']
    options.append('default_hooks.checkpoint.interval=1')
    code, printed = command('train', '--cfg-options', *options)
    assert code == 0, printed
    written = f'test_evaluator.1.outfile_prefix={tmp_path}/out'
    weights = torch.load(tmp_path / 'train/iter_1.pth')['state_dict']
    torch.save({'model': to_release(weights, 'panoptic')}, tmp_path / 'released.pth')
    code, printed = command('test', str(tmp_path / 'released.pth'), '--cfg-options', written)
    assert code == 0, printed
    assert {'semantic/mIoU', 'coco/segm_mAP', 'coco_panoptic/PQ'} <= figures(tmp_path / 'test')[0].keys()
    predicted = PanopticAnnotations(tmp_path / 'out.panoptic.json', tmp_path / 'out.panoptic')
    truth = PanopticAnnotations(data / 'val/panoptic.json', data / 'val/panoptic')
    assert predicted.image_ids() == truth.image_ids() and predicted.categories == truth.categories


@pytest.mark.slow
def test_panoptic_quality_rises(command: Callable, tmp_path: Path) -> None:
    """From random weights; testing the checkpoint gives what the last validation did, of boxes, masks, PQ and mIoU."""
    steps = 90
    options = ['train_cfg.val_interval=30', f'train_cfg.max_iters={steps}', f'param_scheduler.1.end={steps}']
    options += [f'default_hooks.checkpoint.interval={steps}', 'model.panoptic_fusion.score_thr=0.3']
    code, printed = command('train', '--cfg-options', *options)
    assert code == 0, printed
    first, *_, last = figures(tmp_path / 'train')
    assert last['coco_panoptic/PQ'] > first['coco_panoptic/PQ'] + 5
    assert last['coco_panoptic/PQ_th'] > first['coco_panoptic/PQ_th'] + 5
    assert last['coco_panoptic/PQ_st'] > 80 and last['semantic/mIoU'] > 80
    checkpoint = str(tmp_path / f'train/iter_{steps}.pth')
    code, printed = command('test', checkpoint, '--cfg-options', 'model.panoptic_fusion.score_thr=0.3')
    assert code == 0 and re.search(r'\| Things +\|', printed) and re.search(r'\| grass +\|', printed)
    (tested,) = figures(tmp_path / 'test')
    keys = ['coco/bbox_mAP', 'coco/segm_mAP', 'coco_panoptic/PQ', 'coco_panoptic/PQ_th', 'semantic/mIoU']
    assert [tested[key] for key in keys] == pytest.approx([last[key] for key in keys], abs=0.5)


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('model.semantic_head.num_stuff_classes=5', 'has 5 classes of stuff and the data have 3: set model.semantic'),
        ('train_dataloader.dataset.data_prefix.seg=None', 'have no semantic PNGs, which a panoptic model learns'),
        ('train_dataloader.dataset.pipeline.1.with_seg=False', 'have no semantic PNGs, which a panoptic model learns'),
        ('train_dataloader.dataset.data_prefix.seg=no/', 'semantic PNGs in .* are missing, the first is .*no/000'),
        (
            'train_dataloader.dataset.metainfo.stuff_classes=sky',
            r"the stuff_classes .* are the text 'sky': write a tuple",
        ),
        ('val_dataloader.dataset.metainfo.stuff_classes=("a","b","c")', 'but the data set a, b, c: set stuff_classes'),
        (
            'train_dataloader.dataset.metainfo.stuff_classes=("b","a","c")',
            'have the stuff_classes b, a, c and those of',
        ),
        ('val_evaluator.1.seg_prefix=no/', 'PNGs of the panoptic file .*val/panoptic.json are missing'),
    ],
)
def test_data_that_do_not_fit_are_refused(command: Callable, option: str, words: str) -> None:
    code, printed = command('train', '--cfg-options', option)
    assert code == 2 and re.search(words, printed), printed


def test_data_of_objects_alone_are_refused(command: Callable, data: Path) -> None:
    code, printed = command('train', '--data', str(data))
    assert code == 2 and 'is panoptic and learns semantic PNGs too' in printed
