"""Using a panoptic model by the commands: predictions, the report, and what is refused in a sentence."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config

import centermask
from centermask import CenterMaskVisualizer
from centermask.datasets.coco_panoptic import PanopticAnnotations
from centermask.datasets.panoptic_shapes import STUFF
from centermask.datasets.shapes import CLASSES
from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL_SEGMENTS = ['model.panoptic_fusion.score_thr=0.001', 'model.panoptic_fusion.stuff_area_limit=1']


@pytest.fixture(scope='module')
def files(tools: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a config, of three made images beside it, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('panoptic')
    tools('make_shapes_dataset')([str(folder / 'val'), '--images', '3', '--panoptic'])
    config = folder / 'panoptic.py'
    config.write_text(f"""
_base_ = '{REPOSITORY}/configs/demo/panoptic-centermask-lite-star_v2-19-slim_shapes.py'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{folder}/'))
val_dataloader = loader
test_dataloader = loader
truth = dict(ann_file='{folder}/val/panoptic.json', seg_prefix='{folder}/val/panoptic/')
val_evaluator = [
    dict(type='CenterMaskCocoMetric', metric=['bbox', 'segm'], ann_file='{folder}/val/annotations.json'),
    dict(type='PanopticQuality', **truth),
    dict(type='SemanticIoU', **truth),
]
test_evaluator = val_evaluator
model = dict(test_cfg=dict(score_thr=0.001, max_per_img=30))  # detects something without training
""")
    torch.manual_seed(0)
    checkpoint = folder / 'random.pth'
    meta = dict(dataset_meta=dict(classes=CLASSES, stuff_classes=STUFF))
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict(), meta=meta), checkpoint)
    return config, checkpoint


@pytest.fixture
def command(files: tuple[Path, Path], tools: Callable, capfd: pytest.CaptureFixture) -> Callable:
    """Run a tool on the config and the checkpoint; return the exit code and what it printed."""

    def call(tool: str, *args: str | Path, before: tuple = ()) -> tuple[int, str]:
        CenterMaskVisualizer._instance_dict.clear()
        code = run(lambda: tools(tool)([*map(str, (*before, *files, *args))]))
        return code, ''.join(capfd.readouterr())

    return call


def test_predict(command: Callable, files: tuple[Path, Path], tmp_path: Path) -> None:
    """The panoptic files agree with each other and with the drawn images; ids are those of the panoptic file."""
    data = files[0].parent / 'val'
    code, printed = command(
        'predict', '--out-dir', tmp_path, '--cfg-options', *SMALL_SEGMENTS, before=(data / 'images',)
    )
    assert code == 0 and '3 images, panoptic segments are drawn' in printed
    assert 'ids of classes are those of' in printed
    written = PanopticAnnotations(tmp_path / 'predictions.panoptic.json', tmp_path / 'predictions.panoptic')
    truth = PanopticAnnotations(data / 'panoptic.json', data / 'panoptic')
    assert set(written.categories) == set(truth.categories)
    detections = json.loads((tmp_path / 'predictions.segm.json').read_text())
    kinds = set()
    for number in truth.image_ids():
        numbers, segments = written.read(number)
        assert numbers.shape == truth.read(number)[0].shape and segments
        assert np.bincount(numbers.ravel(), minlength=len(segments) + 1)[1:].tolist() == [s['area'] for s in segments]
        kinds |= {segment['isthing'] for segment in segments}
        name = truth.images[number]['file_name']
        drawn = cv2.imread(str(tmp_path / 'vis' / Path(name).name))
        image = cv2.resize(cv2.imread(str(data / 'images' / name)), (640, 640), interpolation=cv2.INTER_CUBIC)
        inside = cv2.resize(numbers.astype(np.float32), (640, 640), interpolation=cv2.INTER_NEAREST) > 0
        assert (np.abs(drawn[:, :640].astype(int) - image).max(-1) > 10)[inside].mean() > 0.9
    assert kinds == {0, 1}
    assert {str(found['image_id']) for found in detections} == {*truth.image_ids()}


def test_report(command: Callable, tools: Callable, tmp_path: Path) -> None:
    """It has PQ and mIoU beside AP, and the model's speed."""
    out = tmp_path / 'test'
    options = [f'test_evaluator.0.outfile_prefix={out}/results', 'test_evaluator.0.classwise=True']
    code, printed = command('test', '--work-dir', out, '--cfg-options', *options)
    assert code == 0 and 'Panoptic quality' in printed, printed
    scalars = tmp_path / '1/vis_data/scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text(json.dumps(dict(loss=1.0, loss_seg=0.5, lr=0.01, iter=1, step=1)))
    assert run(lambda: tools('report')([str(tmp_path)])) == 0
    page = (tmp_path / 'report/report.html').read_text()
    assert all(f'<td>{name}</td>' in page for name in ('PQ', 'PQ of things', 'PQ of stuff', 'mIoU'))
    assert re.search(r'random\.pth</td>.*<td>\d+ ms an image of \d+×\d+ pixels', page)


def test_mmdetection_inferencer(files: tuple[Path, Path], tmp_path: Path) -> None:
    """It gives data samples and draws them; its dicts need panopticapi, which isn't on PyPI."""
    config, checkpoint = files
    inferencer = DetInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    image = str(config.parent / 'val/images/000000.jpg')
    (sample,) = inferencer(image, return_datasamples=True, out_dir=str(tmp_path))['predictions']
    assert sample.pred_panoptic_seg.sem_seg.shape == (1, *sample.ori_shape)
    assert (tmp_path / 'vis/000000.jpg').is_file()
    (same,) = centermask.load(config, checkpoint, 'cpu').predict(image)
    assert torch.equal(same.pred_panoptic_seg.sem_seg, sample.pred_panoptic_seg.sem_seg)


@pytest.mark.parametrize(
    ('tool', 'args', 'words'),
    [
        ('export', ['--out', '{}/model.onnx'], 'an exported file has no place for a panoptic map: predict with the'),
        ('test', ['--tta', '--work-dir', '{}'], r'--tta: the config .* has no tta_model\.'),
    ],
)
def test_refused(command: Callable, tmp_path: Path, tool: str, args: list[str], words: str) -> None:
    code, printed = command(tool, *(arg.format(tmp_path) for arg in args))
    assert code == 2 and re.search(words, printed), printed
    assert not [*tmp_path.glob('*.onnx')]


def test_models_without_panoptic_maps_are_refused(
    files: tuple[Path, Path], tools: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """A CenterMask on panoptic data: its evaluator says what is missing."""
    config = tmp_path / 'instances.py'
    config.write_text(f"""
_base_ = '{REPOSITORY}/configs/demo/centermask-lite-star_v2-19-slim_shapes.py'
folder = '{files[0].parent}'
data = dict(data_root=folder + '/', metainfo=dict(stuff_classes={STUFF}))
loader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = loader
val_dataloader = loader
test_evaluator = dict(
    _delete_=True, type='PanopticQuality', ann_file=folder + '/val/panoptic.json', seg_prefix=folder + '/val/panoptic'
)
""")
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict()), tmp_path / 'random.pth')
    words = [str(config), str(tmp_path / 'random.pth'), '--work-dir', str(tmp_path / 'out')]
    assert run(lambda: tools('test')(words)) == 2
    assert 'PanopticQuality needs panoptic maps and the model makes none' in ''.join(capfd.readouterr())
