"""A trained checkpoint in CenterMask2's layout: every command finds the release's detections with it.

The release's detections on six real images are listed in a file beside it.
"""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from mmdet.datasets import CocoDataset

from centermask.checkpoints.loading import read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
CLASS_LAYERS = ('bbox_head.conv_cls', 'roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')
SHOWN = 0.3  # the listing has all detections of a higher score


class Detections(NamedTuple):
    """Detections of one image: corners in pixels, labels from 0 to 79, scores of boxes and masks, RLEs."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    mask_scores: np.ndarray
    masks: list[dict]


class Original(NamedTuple):
    """The checkpoint, the images, and the release's detections and AP."""

    path: Path
    images: Path
    listing: dict

    def options(self, backend: str) -> list[str]:
        """Return options that test the config on the images at the listing's size."""
        data = 'test_dataloader.dataset'
        return [
            f'{data}.data_root={self.images}',
            f'{data}.ann_file=instances.json',
            f'{data}.data_prefix.img=images',
            f'test_evaluator.ann_file={self.images}/instances.json',
            f'{data}.pipeline.1.scale=(480,288)',
            f'{data}.pipeline.1.backend={backend}',
        ]


@pytest.fixture(scope='module')
def original(shared: Path) -> Original:
    path = shared / 'parity/star/lite_V_19_slim_coco6.pth'
    return Original(path, shared / 'data/coco6', json.loads(path.with_suffix('.json').read_text()))


def _run(*words: str | Path, cwd: Path) -> None:
    done = subprocess.run([*map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def _check_detections(found: dict[int, Detections], listing: dict) -> None:
    """Check that exactly the listed detections are found; they are matched by label and box."""
    assert len(found) == len(listing['images']) == 6
    for image in listing['images']:
        here = found[image['image_id']]
        matches = []
        for i, box in enumerate(image['boxes']):
            distances = np.abs(here.boxes - box).max(1) + 1e6 * (here.labels != image['labels'][i])
            match = distances.argmin()
            matches.append(match)
            assert distances[match] < 0.01
            assert here.scores[match] == pytest.approx(image['scores'][i], rel=1e-4)
            assert here.mask_scores[match] == pytest.approx(image['mask_scores'][i], rel=1e-4)
            mask, expected = (mask_utils.decode(rle) for rle in (here.masks[match], image['masks'][i]))
            overlap = (mask & expected).sum() / max((mask | expected).sum(), 1)
            assert overlap >= 0.99 or (mask != expected).sum() <= 2
        assert len(set(matches)) == len(matches) == (here.scores > SHOWN).sum()


def _figures(work_dir: Path) -> dict[str, float]:
    """Return the AP figures of a test's log."""
    (log,) = work_dir.glob('*/2*.json')
    figures = json.loads(log.read_text().splitlines()[-1])
    return {key: value for key, value in figures.items() if key.startswith('coco/')}


def _check_ap(work_dir: Path, listed: dict, within: float = 0.002) -> None:
    figures = _figures(work_dir)
    names = dict(mAP='AP', mAP_50='AP50', mAP_75='AP75', mAP_s='APs', mAP_m='APm', mAP_l='APl')
    for kind in ('bbox', 'segm'):
        here = {name: figures[f'coco/{kind}_{key}'] for key, name in names.items()}
        assert here == pytest.approx(listed[kind], abs=within)


def _dumped(path: Path) -> dict[int, Detections]:
    """Return the detections in a file of ``--out`` by image id."""
    found = {}
    for sample in pickle.loads(path.read_bytes()):
        instances = sample['pred_instances']
        arrays = (instances[key].numpy() for key in ('bboxes', 'labels', 'scores', 'mask_scores'))
        found[sample['img_id']] = Detections(*arrays, instances['masks'])
    return found


MIM = [Path(sys.executable).with_name('mim'), 'test', 'mmdet', CONFIG, '--checkpoint']
COMMANDS = {'tools/test.py': [sys.executable, REPOSITORY / 'tools/test.py', CONFIG], 'mim test': MIM}


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_detections_and_ap(command: str, original: Original, tmp_path: Path) -> None:
    out = ['--work-dir', tmp_path / 'run', '--out', tmp_path / 'found.pkl']
    _run(*COMMANDS[command], original.path, *out, '--cfg-options', *original.options('cv2'), cwd=tmp_path)
    _check_detections(_dumped(tmp_path / 'found.pkl'), original.listing)
    _check_ap(tmp_path / 'run', original.listing['metrics'])


@pytest.mark.slow
def test_ap_of_antialiased_images(original: Original, tmp_path: Path) -> None:
    """The AP holds with the antialiasing filter of the configs, with fused layers and without."""
    for name, more in (('fast', []), ('plain', ['model.fuse_conv_bn=False'])):
        words = [original.path, '--work-dir', tmp_path / name, '--cfg-options', *original.options('pillow'), *more]
        _run(*COMMANDS['tools/test.py'], *words, cwd=tmp_path)
        _check_ap(tmp_path / name, original.listing['metrics_antialiased_resize'])
    assert _figures(tmp_path / 'fast') == pytest.approx(_figures(tmp_path / 'plain'), abs=0.001)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason='--amp is refused on a CPU without bfloat16')
def test_ap_in_half_precision(original: Original, tmp_path: Path) -> None:
    words = [original.path, '--amp', '--work-dir', tmp_path / 'run', '--cfg-options', *original.options('pillow')]
    _run(*COMMANDS['tools/test.py'], *words, cwd=tmp_path)
    _check_ap(tmp_path / 'run', original.listing['metrics_antialiased_resize'], within=0.003)


@pytest.mark.slow
def test_exported(original: Original, tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Exported files find the checkpoint's detections and have its AP in both runtimes."""
    for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    from centermask.export.files import convert
    from centermask.export.runtime import ExportedModel

    options = original.options('pillow')
    source = tmp_path / 'model.onnx'
    tools('export')([str(CONFIG), str(original.path), '--out', str(source), '--cfg-options', *options])
    printed = re.findall(r'(\w+) on 4 images: (\d+) of (\d+) detections agree', capsys.readouterr().out)
    assert [runtime for runtime, agreeing, total in printed if agreeing == total] == ['onnxruntime', 'openvino']
    metadata = ExportedModel(source).metadata
    convert(source, tmp_path / 'model.xml', metadata)
    convert(source, tmp_path / 'half.onnx', replace(metadata, precision='half'))
    for file, within in (('model.onnx', 0.001), ('model.xml', 0.001), ('half.onnx', 0.003)):
        words = [str(CONFIG), str(tmp_path / file), '--work-dir', str(tmp_path / f'run {file}')]
        tools('test')([*words, '--cfg-options', *options])
        figures = _figures(tmp_path / f'run {file}')
        for kind in ('bbox', 'segm'):
            expected = original.listing['metrics_antialiased_resize'][kind]['AP']
            assert figures[f'coco/{kind}_mAP'] == pytest.approx(expected, abs=within), file


@pytest.mark.slow
def test_predict(original: Original, tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / 'tools/predict.py', original.images / 'images', CONFIG, original.path]
    _run(*command, '--out-dir', tmp_path, '--cfg-options', *original.options('cv2'), cwd=tmp_path)
    boxes, masks = (json.loads((tmp_path / f'predictions.{kind}.json').read_text()) for kind in ('bbox', 'segm'))
    found = {}
    for image in original.listing['images']:
        here = [i for i, entry in enumerate(boxes) if entry['image_id'] == image['image_id']]
        corners = np.array([boxes[i]['bbox'] for i in here])
        corners[:, 2:] += corners[:, :2]
        found[image['image_id']] = Detections(
            corners,
            np.array([CocoDataset.METAINFO['classes'].index(boxes[i]['category_name']) for i in here]),
            np.array([boxes[i]['score'] for i in here]),
            np.array([masks[i]['score'] for i in here]),
            [masks[i]['segmentation'] for i in here],
        )
    _check_detections(found, original.listing)
    assert len(list((tmp_path / 'vis').iterdir())) == 6


def test_training_starts_from_it_with_other_classes(
    original: Original, tiny_config: Path, tools: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """A training starts from all of the file but the layers of the classes, which one line names."""
    options = [f'load_from={original.path}', 'optim_wrapper.optimizer.lr=0', 'train_cfg.max_iters=1']
    tools('train')([str(tiny_config), '--work-dir', str(tmp_path), '--cfg-options', *options])
    output = ''.join(capfd.readouterr())
    (line,) = {line.partition(' - WARNING - ')[2] for line in output.splitlines() if 'start fresh' in line}
    expected = f'{original.path} was trained on 80 classes and the config has 5: {", ".join(CLASS_LAYERS)} start fresh.'
    assert line == expected

    trained = torch.load(tmp_path / 'iter_1.pth')['state_dict']
    of_the_file = read_checkpoint(str(original.path))['state_dict']
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')  # the shapes' config trains BN
    for name, tensor in trained.items():
        if name.startswith(CLASS_LAYERS):
            assert len(tensor) == 5
        elif not name.endswith(statistics):
            assert torch.equal(tensor, of_the_file[name].float()), name
