"""tools/test.py, and MMDetection's own scripts on the same config and checkpoint."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.release_layout import to_release
from mmdet.apis import inference_detector, init_detector

from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def test(tools: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable:
    """Test a checkpoint of the tiny config, logging into ``tmp_path/run``."""

    def call(*args: str, checkpoint: Path = tiny_run / 'iter_2.pth') -> tuple[int, str]:
        argv = [str(tiny_config), str(checkpoint), '--work-dir', str(tmp_path / 'run'), *args]
        code = run(lambda: tools('test')(argv))
        return code, capsys.readouterr().err

    return call


def _figures(work_dir: Path) -> dict:
    """Return the AP figures of the one test run that a folder holds."""
    (log,) = work_dir.glob('*/2*.json')
    figures = json.loads(log.read_text().splitlines()[-1])
    return {key: value for key, value in figures.items() if key.startswith('coco/')}


def _predictions(path: Path) -> list[dict]:
    return [sample['pred_instances'] for sample in pickle.loads(path.read_bytes())]


def test_writes_predictions_and_drawings(test: Callable, tmp_path: Path) -> None:
    assert test('--out', str(tmp_path / 'out/all.pkl'), '--show-dir', 'pictures')[0] == 0
    found = _predictions(tmp_path / 'out/all.pkl')
    assert len(found) == 3
    assert set(found[0]) == {'bboxes', 'scores', 'labels', 'masks', 'mask_scores'} and len(found[0]['scores']) > 0
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['all.pkl']
    assert len(list((tmp_path / 'run').glob('*/pictures/*.jpg'))) == 3
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= _figures(tmp_path / 'run').keys()


def test_panoptic_release(test: Callable, tiny_run: Path, tmp_path: Path) -> None:
    """The instance branch of one is tested as if it had been released alone."""
    weights = to_release(torch.load(tiny_run / 'iter_2.pth')['state_dict'], 'star')
    of_panoptic = {'sem_seg_head.predictor.bias': torch.zeros(54), 'backbone.fpn_output2.bias': torch.zeros(128)}
    torch.save({'model': weights | of_panoptic}, tmp_path / 'a.pth')
    assert test('--out', str(tmp_path / 'a.pkl'), checkpoint=tmp_path / 'a.pth')[0] == 0
    assert test('--out', str(tmp_path / 'b.pkl'))[0] == 0
    for found, expected in zip(*(_predictions(tmp_path / name) for name in ('a.pkl', 'b.pkl')), strict=True):
        assert torch.equal(found['scores'], expected['scores']) and len(found['scores']) > 0


def test_drawings_of_images_of_one_name(test: Callable, tiny_config: Path, tmp_path: Path) -> None:
    """They lie in folders as the images do."""
    content = json.loads((tiny_config.parent / 'shapes/val/annotations.json').read_text())
    names = [f'cam{i}/left/a.jpg' for i in range(3)]
    for image, name in zip(content['images'], names, strict=True):
        (tmp_path / 'data/images' / name).parent.mkdir(parents=True)
        shutil.copy(tiny_config.parent / 'shapes/val/images' / image['file_name'], tmp_path / 'data/images' / name)
        image['file_name'] = name
    (tmp_path / 'data/val.json').write_text(json.dumps(content))
    assert test('--data', str(tmp_path / 'data'), '--show-dir', 'drawn')[0] == 0
    (out,) = (tmp_path / 'run').glob('*/drawn')
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob('*.jpg')) == names


def test_augmented(test: Callable, tmp_path: Path) -> None:
    for name, args in (('once', ()), ('augmented', ('--tta',))):
        assert test(*args, '--out', str(tmp_path / f'{name}.pkl'))[0] == 0
    once, augmented = (_predictions(tmp_path / f'{name}.pkl') for name in ('once', 'augmented'))
    assert len(augmented) == len(once) == 3
    for sample, plain in zip(augmented, once, strict=True):
        assert set(sample) == set(plain) and len(sample['scores']) == len(sample['masks'])
        # So little trained, the best of an image may be boxes without area, which are dropped.
        assert all(mask['size'] == [160, 160] for mask in sample['masks'])
    assert any(len(sample['scores']) for sample in augmented)
    assert any(not torch.equal(a['scores'][:3], b['scores'][:3]) for a, b in zip(augmented, once, strict=True))


@pytest.mark.slow
def test_mim_finds_the_same(test: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    """``mim test mmdet`` runs MMDetection's script, which imports this package by the config."""
    assert test('--out', str(tmp_path / 'ours.pkl'))[0] == 0
    mim = [str(Path(sys.executable).with_name('mim')), 'test', 'mmdet', str(tiny_config)]
    options = ['--checkpoint', str(tiny_run / 'iter_2.pth'), '--work-dir', str(tmp_path / 'mim')]
    done = subprocess.run(
        [*mim, *options, '--out', str(tmp_path / 'mim.pkl')], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert _figures(tmp_path / 'mim') == _figures(tmp_path / 'run')
    ours, theirs = _predictions(tmp_path / 'ours.pkl'), _predictions(tmp_path / 'mim.pkl')
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine['bboxes'], other['bboxes']) and torch.equal(mine['mask_scores'], other['mask_scores'])
        assert mine['masks'] == other['masks']


@pytest.mark.slow
def test_mim_trains(tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    """``mim train mmdet`` trains, and starts from another number of classes as tools/train.py does."""
    mim = [str(Path(sys.executable).with_name('mim')), 'train', 'mmdet', str(tiny_config), '--work-dir', str(tmp_path)]
    three = "metainfo.classes=('circle','square','star')"
    options = [f'load_from={tiny_run}/iter_2.pth', 'model.num_classes=3', 'train_cfg.max_iters=1']
    data = [f'{loader}.dataset.{three}' for loader in ('train_dataloader', 'val_dataloader')]
    done = subprocess.run([*mim, '--cfg-options', *options, *data], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'iter_1.pth').is_file()
    assert 'was trained on 5 classes and the config has 3: bbox_head.conv_cls' in done.stdout + done.stderr


def test_mmdet_apis_find_the_same(test: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    assert test('--out', str(tmp_path / 'ours.pkl'))[0] == 0
    model = init_detector(str(tiny_config), str(tiny_run / 'iter_2.pth'), device='cpu')
    images = sorted((tiny_config.parent / 'shapes/val/images').iterdir())
    found = inference_detector(model, [str(image) for image in images])
    for sample, mine in zip(found, _predictions(tmp_path / 'ours.pkl'), strict=True):
        # alone and in a batch sums run in another order
        assert torch.allclose(sample.pred_instances.scores, mine['scores'], atol=1e-4)
        assert torch.allclose(sample.pred_instances.mask_scores, mine['mask_scores'], atol=1e-4)


BAD = [
    ('--tta --cfg-options tta_pipeline=None', None, '--tta: the config {config} has no tta_pipeline.'),
    ('--cfg-options model.num_classes=3', None, ' has 3 classes and the data have 5 (circle, triangle, '),
    ('', 'no.pth', "The checkpoint no.pth doesn't exist: give the path of a file."),
    ('--out a.json', None, '--out a.json: the file is a pickle, so end its name in .pkl or .pickle.'),
    ('--out {run}/iter_2.pth/a.pkl', None, "The folder {run}/iter_2.pth can't be written to"),
    ('--show-dir a --cfg-options default_hooks.visualization=None', None, '--show: the config'),
    (
        '--cfg-options model.num_classes=3 test_dataloader.dataset.metainfo.classes=(square,star,cross)',
        None,
        'it was trained on 5 classes and the config has 3: bbox_head.conv_cls.weight is (5, 128, 3, 3) in the file and '
        '(3, 128, 3, 3) in the model',
    ),
    (
        '--cfg-options model.backbone.arch=19-slim-dw',
        None,
        "doesn't fit the config's model, it belongs to another model: backbone.stem.1",
    ),
]


@pytest.mark.parametrize(('args', 'checkpoint', 'words'), BAD, ids=[f'{args[:40]} {path}' for args, path, _ in BAD])
def test_bad_input(
    args: str, checkpoint: str | None, words: str, test: Callable, tiny_run: Path, tiny_config: Path
) -> None:
    code, text = test(
        *args.format(run=tiny_run).split(), **({} if checkpoint is None else {'checkpoint': Path(checkpoint)})
    )
    last = text.splitlines()[-1]
    assert code == 2 and last.startswith('error: ') and words.format(run=tiny_run, config=tiny_config) in last
