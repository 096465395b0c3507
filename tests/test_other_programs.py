"""Programs for MMDetection's models take the configs and checkpoints as they are (docs/other_programs.md)."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import mmdet
import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config

import centermask

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = {
    'star': 'demo/centermask-lite-star_v2-19-slim_shapes',
    'paper': 'centermask-lite_v2-19_fpn_4x_coco',
    'no masks': 'paper/fcos_r50_fpn_1x_coco',
}
CLASSES = ('circle', 'triangle', 'square', 'star', 'cross')
TOOLS = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools'
SIDE = 160  # of the images

pytestmark = pytest.mark.slow


def _import(package: str) -> ModuleType:
    return pytest.importorskip(package, reason=f"{package} isn't installed: pip install 'centermask[programs]'")


class Detector(NamedTuple):
    """Paths of a config and a checkpoint."""

    config: str
    checkpoint: str


@pytest.fixture(scope='module')
def detector(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path) -> Callable[[str], Detector]:
    """``detector(recipe)`` is a model that finds boxes of about 48 pixels, filled by their masks, in any image."""

    def make(recipe: str) -> Detector:
        folder = tmp_path_factory.mktemp('detector')
        base = tiny_config if recipe == 'star' else REPOSITORY / f'configs/{CONFIGS[recipe]}.py'
        (folder / 'config.py').write_text(f"""
_base_ = '{base}'
model = dict(num_classes=5, backbone=dict(init_cfg=None), test_cfg=dict(score_thr=0, max_per_img=10))
val_dataloader = dict(batch_size=1, dataset=dict(metainfo=dict(classes={CLASSES})))
test_dataloader = val_dataloader
""")
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(folder / 'config.py').model)
        model.init_weights()
        torch.nn.init.zeros_(model.bbox_head.conv_reg.weight)
        torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 3)
        if model.roi_head:
            torch.nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 20)
        meta = {'dataset_meta': {'classes': CLASSES}}
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'model.pth')
        return Detector(str(folder / 'config.py'), str(folder / 'model.pth'))

    return make


@pytest.fixture(scope='module')
def star(detector: Callable[[str], Detector]) -> Detector:
    return detector('star')


@pytest.fixture(scope='module')
def picture(tiny_config: Path) -> np.ndarray:
    return cv2.imread(str(tiny_config.parent / 'shapes/val/images/000000.jpg'))


@pytest.fixture
def analyse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """``analyse(name, *args)`` runs one of MMDetection's analysis tools in this process and returns its output."""

    def call(name: str, *args: object) -> str:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        capsys.readouterr()
        runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')
        return capsys.readouterr().out

    return call


# Packages


@pytest.mark.parametrize('recipe', CONFIGS)
def test_sahi(recipe: str, detector: Callable[[str], Detector], picture: np.ndarray) -> None:
    """Four slices of an image that repeats another hold that one's detections, shifted; ``image_size`` is obeyed."""
    _import('sahi')
    from sahi import AutoDetectionModel
    from sahi.predict import get_prediction, get_sliced_prediction

    config, checkpoint = detector(recipe)
    model = AutoDetectionModel.from_pretrained(
        'mmdet',
        model_path=checkpoint,
        config_path=config,
        image_size=SIDE,
        confidence_threshold=0,
        device='cpu',
    )
    sizes, predict = [], model.model.model.predict
    model.model.model.predict = lambda inputs, *args, **kwargs: (
        sizes.append(tuple(inputs.shape[-2:])),
        predict(inputs, *args, **kwargs),
    )[1]
    rgb = picture[..., ::-1]
    once = get_prediction(rgb, model).object_prediction_list
    assert 0 < len(once) <= 10 and all((found.mask is None) == (recipe == 'no masks') for found in once)
    sliced = get_sliced_prediction(
        np.tile(rgb, (2, 2, 1)),
        model,
        slice_height=SIDE,
        slice_width=SIDE,
        overlap_height_ratio=0,
        overlap_width_ratio=0,
        perform_standard_pred=False,
        postprocess_type='NMS',
        postprocess_match_metric='IOU',
        postprocess_match_threshold=1.0,
    ).object_prediction_list
    corners = [(x, y) for y in (0, SIDE) for x in (0, SIDE)]
    expected = [np.add(found.bbox.to_xyxy(), [x, y, x, y]).tolist() for x, y in corners for found in once]
    np.testing.assert_allclose(sorted(found.bbox.to_xyxy() for found in sliced), sorted(expected), atol=1)
    assert sizes == 5 * [(SIDE, SIDE)]


def test_supervision(star: Detector, picture: np.ndarray) -> None:
    """Boxes, classes and masks are the model's, and an annotator of masks draws on their pixels alone."""
    sv = _import('supervision')
    (result,) = centermask.load(*star, device='cpu').predict(picture)
    detections = sv.Detections.from_mmdetection(result)
    found = result.pred_instances
    assert len(detections) == len(found) > 0
    np.testing.assert_array_equal(detections.xyxy, found.bboxes)
    np.testing.assert_array_equal(detections.class_id, found.labels)
    np.testing.assert_array_equal(detections.mask, found.masks)
    drawn = sv.MaskAnnotator().annotate(picture.copy(), detections)
    assert ((drawn != picture).any(-1) <= detections.mask.any(0)).all() and (drawn != picture).any()
    for annotator in (sv.BoxAnnotator(), sv.PolygonAnnotator(), sv.HaloAnnotator(), sv.LabelAnnotator()):
        assert (annotator.annotate(picture.copy(), detections) != picture).any()


# MMDetection's own


def test_det_inferencer(star: Detector, picture: np.ndarray, tmp_path: Path) -> None:
    """It finds the same as ``inference_detector``, and draws and writes it."""
    found = inference_detector(init_detector(*star, device='cpu'), picture).pred_instances
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    inferencer = DetInferencer(*star, device='cpu', show_progress=False)
    (result,) = inferencer(str(tmp_path / 'a.png'), out_dir=str(tmp_path), no_save_pred=False)['predictions']
    np.testing.assert_allclose(result['bboxes'], found.bboxes, atol=1e-4)
    np.testing.assert_array_equal(mask_utils.decode(result['masks']).transpose(2, 0, 1), found.masks)
    assert (tmp_path / 'vis/a.png').is_file() and (tmp_path / 'preds/a.json').is_file()


def test_browse_dataset(star: Detector, tiny_config: Path, analyse: Callable, tmp_path: Path) -> None:
    """Every training image is drawn on."""
    analyse('browse_dataset', star.config, '--output-dir', tmp_path / 'drawn', '--not-show')
    for image in (tiny_config.parent / 'shapes/train/images').iterdir():
        files = tmp_path / 'drawn' / image.name, image
        drawn, plain = (cv2.resize(cv2.imread(str(file)), (SIDE, SIDE)).astype(int) for file in files)
        assert min(np.abs(drawn - view).max() for view in (plain, plain[:, ::-1])) > 50


@pytest.fixture(scope='module')
def tested(star: Detector, tools: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test's results: ``all.pkl`` and ``coco.*.json``."""
    folder = tmp_path_factory.mktemp('tested')
    options = ['--cfg-options', f'test_evaluator.outfile_prefix={folder}/coco']
    tools('test')([*star, '--work-dir', str(folder), '--out', str(folder / 'all.pkl'), *options])
    return folder


def test_confusion_matrix(star: Detector, tested: Path, analyse: Callable) -> None:
    analyse('confusion_matrix', star.config, tested / 'all.pkl', tested, '--score-thr', 0)
    assert cv2.imread(str(tested / 'confusion_matrix.png')).any()


def test_coco_error_analysis(tiny_config: Path, tested: Path) -> None:
    """It forks 48 processes, which are many of this one."""
    annotations = str(tiny_config.parent / 'shapes/val/annotations.json')
    command = [sys.executable, str(TOOLS / 'coco_error_analysis.py'), 'coco.segm.json', 'errors', '--ann', annotations]
    done = subprocess.run([*command, '--types', 'bbox', 'segm'], cwd=tested, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in (*CLASSES, 'allclass'):
        for kind in ('bbox', 'segm'):
            assert (tested / f'errors/{kind}/{kind}-{name}-allarea.png').is_file()


def test_analyze_logs(tiny_run: Path, analyse: Callable, tmp_path: Path) -> None:
    _import('seaborn')
    (log,) = tiny_run.glob('*/vis_data/scalars.json')
    keys = '--keys', 'loss', 'loss_mask'
    analyse('analyze_logs', 'plot_curve', log, *keys, '--out', tmp_path / 'losses.png')
    assert (tmp_path / 'losses.png').is_file()
    assert 'average iter time' in analyse('analyze_logs', 'cal_train_time', log)


def test_get_flops(star: Detector, analyse: Callable) -> None:
    """The parameters are the model's."""
    printed = analyse('get_flops', star.config, '--num-images', 1)
    model = init_detector(*star, device='cpu')
    assert f'Params: {sum(p.numel() for p in model.parameters()) / 1e6:.3f}M' in printed
