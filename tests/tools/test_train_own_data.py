"""Training and testing by ``--data``, to the report."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.release_layout import to_release
from mmdet.registry import MODELS
from mmengine.config import Config

from centermask.datasets.shapes import make_dataset
from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Return a folder of eight images in one file, with one class renamed, for the command to split."""
    made = make_dataset(tmp_path / 'own', 8, seed=3)
    made['categories'][0]['name'] = 'disc'
    (tmp_path / 'own/annotations.json').write_text(json.dumps(made))
    return tmp_path / 'own'


def _release(config: str, recipe: str, path: Path) -> str:
    """Write random weights as the recipe's authors release theirs, of COCO's 80 classes."""
    model = Config.fromfile(config).model
    model.num_classes, model.backbone.init_cfg = 80, None
    torch.save({'model': to_release(MODELS.build(model).state_dict(), recipe)}, path)
    return f'load_from={path}'


def test_one_command_to_the_report(
    shapes: Path, tiny_config: Path, tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [sys.executable, 'tools/train.py', str(tiny_config), '--data', str(shapes), '--work-dir', str(tmp_path)]
    command += ['--cfg-options', _release(str(tiny_config), 'star', tmp_path / 'star.pth')]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'Data: 5 classes, ' in done.stdout and 'is split by image: ' in done.stdout
    assert 'star.pth has the star layout' in done.stdout
    assert 'was trained on 80 classes and the config has 5: bbox_head.conv_cls, ' in done.stdout
    assert 'Schedule: 2 iterations of 2 images' in done.stdout
    assert 'A training would lose no object.' in done.stdout and 'disc ' in done.stdout
    assert f'Tested: {tmp_path}/best_coco_segm_mAP_iter_2.pth, of the best validation.' in done.stdout
    page = (tmp_path / 'report/report.html').read_text()
    assert 'disc' in page and str(tmp_path / 'data/val.json') in page
    # The resolved config is that of a run without --data.
    cfg = Config.fromfile(tmp_path / 'tiny.py')
    assert cfg.train_dataloader.dataset.ann_file == str(tmp_path / 'data/train.json')
    assert cfg.val_dataloader.dataset.metainfo.classes[0] == 'disc'

    argv = [
        str(tiny_config),
        str(tmp_path / 'iter_2.pth'),
        '--data',
        str(shapes),
        '--work-dir',
        str(tmp_path / 'again'),
    ]
    capsys.readouterr()
    assert run(lambda: tools('test')(argv)) == 0
    assert 'coco/segm_mAP' in capsys.readouterr().out
    assert (tmp_path / 'again/data/val.json').read_text() == (tmp_path / 'data/val.json').read_text()


def test_start_from_a_file_of_the_paper_recipe(
    shapes: Path, tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = f'{REPOSITORY}/configs/centermask-lite_mobilenetv2_fpn_4x_coco.py'
    options = [
        _release(config, 'paper', tmp_path / 'paper.pth'),
        'train_cfg.max_iters=1',
        'train_dataloader.dataset.pipeline.3.scale=[(160,160),(160,160)]',
        *(f'{mode}_dataloader.dataset.pipeline.1.scale=(160,160)' for mode in ('val', 'test')),
        *(f'{mode}_dataloader.num_workers=0' for mode in ('train', 'val', 'test')),
        *(f'{mode}_dataloader.persistent_workers=False' for mode in ('train', 'val', 'test')),
    ]
    argv = [config, '--data', str(shapes), '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options]
    assert run(lambda: tools('train')(argv)) == 0
    (log,) = (path for path in (tmp_path / 'run').glob('*/*.log') if 'Load checkpoint' in path.read_text())
    text = log.read_text()
    assert 'paper.pth has the paper layout' in text
    assert 'on 80 classes and the config has 5: bbox_head.conv_cls, roi_head.mask_head.conv_logits start' in text
    assert 'disc' in (tmp_path / 'run/report/report.html').read_text()


def test_bad_folder(tiny_config: Path, tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code = run(lambda: tools('train')([str(tiny_config), '--data', 'no/folder', '--work-dir', str(tmp_path)]))
    text = capsys.readouterr().err
    assert code == 2 and text.count('\n') == 1 and 'no/folder: there is no such folder' in text
