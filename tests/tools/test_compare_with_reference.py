"""tools/compare_with_reference.py: its output and exit code."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_model import MODELS_FOLDER
from helpers.small_reference import as_in_files, computed_by, write_config, write_inputs
from mmengine.config import Config
from parity import read_arrays
from parity.__main__ import main
from torch import Tensor

from centermask import MaskScoringHead
from centermask.engine.cli import run
from centermask.sag_mask_head import SpatialAttention

CONFIGS = MODELS_FOLDER.parents[1]


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with config.py, inputs.npz, inputs.json and, one folder below, the model's own arrays."""
    folder = tmp_path_factory.mktemp('reference')
    config, inputs = write_config(folder, 'paper'), write_inputs(folder)
    (folder / 'paper').mkdir()
    np.savez(folder / 'paper/small.npz', **as_in_files(computed_by(config, inputs).arrays))
    return folder


@pytest.fixture
def compare(capsys: pytest.CaptureFixture) -> Callable:
    """Run the command; return its exit code, its rows by array, and the last line of stderr."""

    def call(*args: object) -> tuple[int, dict[str, str], str]:
        code = run(lambda: main([str(arg) for arg in args]))
        out, err = capsys.readouterr()
        return code, {line.split()[0]: line for line in out.splitlines()}, err.splitlines()[-1]

    return call


def test_agrees(files: Path, compare: Callable) -> None:
    """The inputs are found one folder above; progress is written to stderr."""
    code, rows, err = compare(files / 'config.py', files / 'paper/small.npz')
    expected = read_arrays(files / 'paper/small.npz', 'file')
    assert code == 0
    assert set(rows) == {'array', *expected, 'all'}
    assert all(rows[name].endswith(' ok') for name in expected)
    assert rows['all'] == f'all {len(expected)} arrays agree'
    assert '5/5' in err


def test_command(files: Path) -> None:
    command = [sys.executable, 'tools/compare_with_reference.py', files / 'config.py', files / 'paper/small.npz']
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'arrays agree' in done.stdout


def test_array_beyond_its_tolerance(files: Path, tmp_path: Path, compare: Callable) -> None:
    expected = read_arrays(files / 'paper/small.npz', 'file')
    np.savez(tmp_path / 'changed.npz', **{**expected, 'loss.cls': np.array(1.0)})
    code, rows, err = compare(files / 'config.py', tmp_path / 'changed.npz', '--inputs', files / 'inputs.npz')
    assert code == 1
    assert rows['loss.cls'].endswith('BEYOND') and rows['loss.box'].endswith(' ok')
    assert err.startswith('error: 1 of ') and 'changed.npz' in err


# Alterations of the model, each with some arrays that it changes.
ALTERED = {
    'BN epsilon': ('backbone.c3', 'bias3.det.scores', 'multi.loss.cls'),
    'channels of the attention': ('mask.logits', 'mask.iou', 'multi.loss.mask'),
    'weight of the scoring loss': ('loss.maskiou', 'multi.loss.maskiou'),
    'detached mask': ('multi.grad.roi_heads.mask.feature_extractor.mask_fcn1.weight',),
    'score threshold': ('bias3.det.boxes', 'bias3.det.scores'),
}


@pytest.mark.parametrize('part', ALTERED)
def test_altered_part(
    files: Path, tmp_path: Path, compare: Callable, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    cfg = Config.fromfile(files / 'config.py')
    if part == 'BN epsilon':
        cfg.model.backbone.norm_cfg.eps = 1e-3
    elif part == 'channels of the attention':
        monkeypatch.setattr(SpatialAttention, 'forward', _max_then_mean)
    elif part == 'weight of the scoring loss':
        cfg.model.roi_head.mask_iou_head.loss_iou = dict(type='MSELoss', loss_weight=1.0)
    elif part == 'detached mask':
        forward = MaskScoringHead.forward
        monkeypatch.setattr(
            MaskScoringHead, 'forward', lambda head, x, masks, labels: forward(head, x, masks.detach(), labels)
        )
    else:
        cfg.model.test_cfg.score_thr = 0.5
    cfg.dump(tmp_path / 'altered.py')
    code, rows, _ = compare(tmp_path / 'altered.py', files / 'paper/small.npz')
    assert code == 1
    assert all('BEYOND' in rows[name] for name in ALTERED[part])
    assert ('BEYOND' in rows['fpn.p3']) == (part == 'BN epsilon')


def _max_then_mean(attention: SpatialAttention, x: Tensor) -> Tensor:
    return x * attention.conv(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()


STAR = ('centermask-lite-star_v2-19-slim_fpn_4x_coco', 'star/lite_V_19_slim')
PAPER = ('centermask-lite_v2-39_fpn_4x_coco', 'paper/lite_V_39')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('release', 'change', 'beyond'),
    [
        (PAPER, dict(backbone=dict(norm_cfg=dict(eps=1e-5))), 'backbone.c3'),  # torch's default, 0 there
        (STAR, dict(bbox_head=dict(sqrt_score=False)), 'det.scores'),
        (STAR, dict(roi_head=dict(mask_roi_extractor=dict(roi_layer=dict(aligned=False)))), 'roi.features'),
    ],
)
def test_altered_release(
    shared: Path, tmp_path: Path, compare: Callable, release: tuple[str, str], change: dict, beyond: str
) -> None:
    """Settings that differ between the recipes show in the released implementations' numbers."""
    config = tmp_path / 'altered.py'
    config.write_text(f"_base_ = '{CONFIGS / release[0]}.py'\nmodel = {change!r}\n")
    code, rows, _ = compare(config, shared / f'parity/{release[1]}.npz')
    assert code == 1
    assert 'BEYOND' in rows[beyond]


BAD = [
    (lambda f: None, '{f}/config.py {f}/no.npz', "The expected file {f}/no.npz doesn't exist"),
    (
        lambda f: (f / 'cut.npz').write_bytes((f / 'small.npz').read_bytes()[:5000]),
        '{f}/config.py {f}/cut.npz',
        'The expected file {f}/cut.npz is truncated or no .npz file',
    ),
    (
        lambda f: (f / 'inputs.npz').unlink(),
        '{f}/config.py {f}/small.npz',
        'There is no inputs.npz beside {f}/small.npz or one folder above it: name the file by --inputs.',
    ),
    (
        lambda f: (f / 'inputs.json').write_text('{'),
        '{f}/config.py {f}/small.npz',
        "The polygons are read from {f}/inputs.json, which is missing or isn't JSON: add it.",
    ),
    (
        lambda f: (f / 'config.py').write_text("_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'\n"),
        '{f}/config.py {f}/small.npz',
        'The model of {f}/config.py is a FCOS, of which no release computed numbers: give the config of a CenterMask, ',
    ),
]


@pytest.mark.parametrize(('change', 'args', 'sentence'), BAD)
def test_bad_input(files: Path, tmp_path: Path, compare: Callable, change: Callable, args: str, sentence: str) -> None:
    """Bad input gives one sentence and code 2, before the model runs."""
    folder = tmp_path / 'a/b'
    folder.mkdir(parents=True)
    for name in ('config.py', 'inputs.npz', 'inputs.json', 'paper/small.npz'):
        (folder / Path(name).name).write_bytes((files / name).read_bytes())
    change(folder)
    code, rows, err = compare(*args.format(f=folder).split())
    assert code == 2
    assert err.startswith('error: ') and sentence.format(f=folder) in err
    assert not rows
