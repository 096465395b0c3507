"""Real images: six photographs of COCO through the commands that users run.

Models start from random weights and train BN, since ImageNet's weights may be out of reach.
"""

import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from centermask.datasets.shapes import make_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
LITE = REPOSITORY / 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
HEADLINE = REPOSITORY / 'configs/centermask_v2-99_fpn_3x_coco.py'
CUSTOM = REPOSITORY / 'configs/centermask-lite-star_v2-19-slim_custom.py'

TRAIN = [sys.executable, str(REPOSITORY / 'tools/train.py')]
TEST = [sys.executable, str(REPOSITORY / 'tools/test.py')]
MIM = str(Path(sys.executable).with_name('mim'))

CROWDED = 464689  # the photograph with most objects, a crowd among them

FROM_RANDOM_WEIGHTS = [
    f'model.backbone.{o}' for o in ('init_cfg=None', 'norm_eval=False', 'norm_cfg.requires_grad=True')
]
SOME_DETECTIONS = ['model.test_cfg.score_thr=0.001', 'model.test_cfg.max_per_img=20']  # of a model that knows little

# Warnings of MMEngine's own that a run may print, with their reasons.
WARNING = re.compile(r'\w*Warning: | - (WARNING|ERROR|CRITICAL) - |^\[ ?W')
KNOWN_WARNINGS = {
    '"FileClient" will be deprecated in future': 'CheckpointHook builds one before every training',
    '"HardDiskBackend" is the alias of "LocalBackend"': 'that FileClient builds one',
    'Advance dataloader ': 'IterBasedTrainLoop logs it on resuming; our runner hands it empty batches',
    'torch.meshgrid: in an upcoming release': "MMDetection's point generator leaves its indexing to the default",
    'is skipped since its requires_grad=False': 'its optimisers take no frozen BN, and it names every tensor',
}


class Training(NamedTuple):
    """A finished and tested training: its folder, the output of its commands, and the test's folder."""

    work_dir: Path
    options: list[str]  # config options that name the photographs
    output: str
    tested: Path

    @property
    def checkpoint(self) -> Path:
        return Path((self.work_dir / 'last_checkpoint').read_text())


def _command(*words: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run a command, which must succeed, and return its output."""
    done = subprocess.run([*map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def _scale(width: int, height: int) -> list[str]:
    scale = f'({width},{height})'
    val, test = (f'{loader}_dataloader.dataset.pipeline.1.scale={scale}' for loader in ('val', 'test'))
    return [f'train_dataloader.dataset.pipeline.2.scales=[{scale}]', val, test]


def _scalars(work_dir: Path) -> list[dict]:
    """Return the logged scalars of all runs in a folder, oldest first."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def _figures(work_dir: Path) -> dict[str, float]:
    """Return the AP figures that the last run in a folder logged."""
    logs = sorted(work_dir.rglob('2*.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    last = [line for line in lines if 'coco/bbox_mAP' in line][-1]
    return {key: value for key, value in last.items() if key.startswith('coco/')}


def _predictions(path: Path) -> dict[int, dict]:
    """Return the predictions in a file of ``--out`` by image id."""
    return {sample['img_id']: sample['pred_instances'] for sample in pickle.loads(path.read_bytes())}


def _unexplained(output: str) -> list[str]:
    warned = [line for line in output.splitlines() if WARNING.search(line)]
    return [line for line in warned if not any(known in line for known in KNOWN_WARNINGS)]


@pytest.fixture(scope='module')
def train(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Training]:
    """Train a config on the photographs, resume for 2 iterations, validate and test; each config once."""
    data = f'{shared}/data/coco6'
    loaders = [f'{loader}_dataloader.dataset' for loader in ('train', 'val', 'test')]
    common = [
        *(f'{loader}.data_root={data}' for loader in loaders),
        *(f'{loader}.ann_file=instances.json' for loader in loaders),
        *(f'{loader}.data_prefix.img=images' for loader in loaders),
        *(f'{evaluator}.ann_file={data}/instances.json' for evaluator in ('val_evaluator', 'test_evaluator')),
        'train_dataloader.dataset.filter_cfg.filter_empty_gt=False',  # one of them shows no object
        *FROM_RANDOM_WEIGHTS,
        *SOME_DETECTIONS,
        *('optim_wrapper.optimizer.lr=0.005', 'optim_wrapper.clip_grad.max_norm=5', 'param_scheduler.0.end=5'),
        *('default_hooks.logger.interval=1', 'log_processor.window_size=1'),
        *('default_hooks.checkpoint.interval=100', 'default_hooks.checkpoint.max_keep_ckpts=1', 'randomness.seed=0'),
    ]

    @cache
    def run(config: Path) -> Training:
        iterations = 20
        work_dir = tmp_path_factory.mktemp(config.stem)
        command = [*TRAIN, config, '--work-dir', work_dir]
        options = [*common, *_scale(320, 256)]
        lengths = [
            [f'train_cfg.max_iters={iterations}', 'train_cfg.val_interval=100'],
            [f'train_cfg.max_iters={iterations + 2}', f'train_cfg.val_interval={iterations + 2}'],
        ]
        output = _command(*command, '--cfg-options', *options, *lengths[0])
        output += _command(*command, '--resume', '--cfg-options', *options, *lengths[1])
        checkpoint = work_dir / f'iter_{iterations + 2}.pth'
        tested = work_dir / 'test'
        out = ['--work-dir', tested, '--out', tested / 'predictions.pkl']
        output += _command(*TEST, config, checkpoint, *out, '--cfg-options', *options)
        return Training(work_dir, options, output, tested)

    return run


@pytest.mark.slow
def test_trains_resumes_and_is_tested(train: Callable[[Path], Training]) -> None:
    training = train(LITE)
    steps = [line for line in _scalars(training.work_dir) if 'loss' in line]
    losses = [step['loss'] for step in steps]
    assert [step['iter'] for step in steps] == list(range(1, len(steps) + 1))  # none was repeated or left out
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    assert [path.name for path in training.work_dir.glob('*.pth')] == [f'iter_{len(steps)}.pth']

    figures = _figures(training.tested)
    validated = [line for line in _scalars(training.work_dir) if 'coco/bbox_mAP' in line][-1]
    assert figures == {key: validated[key] for key in figures}
    assert 0 <= figures['coco/bbox_mAP'] <= 1 and 0 <= figures['coco/segm_mAP'] <= 1
    assert len(_predictions(training.tested / 'predictions.pkl')) == 6
    assert _unexplained(training.output) == []


@pytest.mark.slow
def test_mmdet_apis(train: Callable[[Path], Training], shared: Path) -> None:
    """MMDetection's APIs take the config in a training's work folder and give no warning."""
    training = train(LITE)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.filterwarnings('ignore', "'pkgutil.find_loader' is deprecated")  # MMEngine's, from Python 3.12 on
        model = init_detector(str(training.work_dir / LITE.name), str(training.checkpoint), device='cpu')
        result = inference_detector(model, str(shared / f'data/coco6/images/{CROWDED:012}.jpg'))
    found, expected = result.pred_instances, _predictions(training.tested / 'predictions.pkl')[CROWDED]
    assert len(model.dataset_meta['classes']) == 80
    assert len(found) > 0 and torch.allclose(found.bboxes, expected['bboxes'], atol=1e-3)
    assert torch.allclose(found.mask_scores, expected['mask_scores'], atol=1e-4)
    assert found.masks.shape == (len(found), 640, 586) and found.masks.dtype == torch.bool


@pytest.fixture
def coco(shared: Path, tmp_path: Path) -> Path:
    """Return a folder with the photographs in data/coco/, where the configs look for COCO."""
    (tmp_path / 'data/coco/annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (tmp_path / f'data/coco/{split}').symlink_to(shared / 'data/coco6/images')
        (tmp_path / f'data/coco/annotations/instances_{split}.json').symlink_to(shared / 'data/coco6/instances.json')
    return tmp_path


@pytest.mark.slow
def test_mim_trains(coco: Path) -> None:
    """``mim train mmdet CONFIG`` needs nothing but COCO at data/coco and this package installed."""
    length = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1']
    options = [*FROM_RANDOM_WEIGHTS, *SOME_DETECTIONS, *_scale(320, 256), *length]
    _command(MIM, 'train', 'mmdet', LITE, '--work-dir', 'run', '--cfg-options', *options, cwd=coco)
    assert (coco / 'run/iter_2.pth').is_file()
    assert [line['iter'] for line in _scalars(coco / 'run') if 'loss' in line] == [1, 2]
    assert 'coco/segm_mAP' in _figures(coco / 'run')


NAMES = ['cup', 'plate', 'fork', 'knife', 'spoon']


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """Return a folder with data/custom/, laid out as the example for own data, with other class names and ids."""
    (tmp_path / 'data/custom/annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        make_dataset(tmp_path / split, 4, seed=0)
        content = json.loads((tmp_path / split / 'annotations.json').read_text())
        ids = {category['id']: 10 * (i + 1) for i, category in enumerate(content['categories'])}
        content['categories'] = [{'id': i, 'name': name} for i, name in zip(ids.values(), NAMES, strict=True)]
        for annotation in content['annotations']:
            annotation['category_id'] = ids[annotation['category_id']]
        (tmp_path / f'data/custom/annotations/{split}.json').write_text(json.dumps(content))
        os.rename(tmp_path / split / 'images', tmp_path / f'data/custom/{split}')
    return tmp_path


@pytest.mark.slow
def test_own_data(own_data: Path, train: Callable[[Path], Training]) -> None:
    """The example for own data follows the classes of the annotations and starts from a detector of COCO's 80."""
    coco_classes = train(LITE).checkpoint
    length = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    options = ['model.backbone.init_cfg=None', *SOME_DETECTIONS, *_scale(160, 160), *length]
    output = _command(*TRAIN, CUSTOM, '--cfg-options', f'load_from={coco_classes}', *options, cwd=own_data)

    layers = ('bbox_head.conv_cls', 'roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')
    (fresh,) = [line for line in output.splitlines() if line.endswith('start fresh.')]
    assert f'{coco_classes} was trained on 80 classes and the config has 5: {", ".join(layers)} start fresh.' in fresh
    assert _unexplained(output.replace(fresh, '')) == []

    work_dir = own_data / 'work_dirs' / CUSTOM.stem
    config = Config.fromfile(work_dir / CUSTOM.name)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert list(loader.dataset.metainfo.classes) == NAMES
    checkpoint = torch.load(work_dir / 'iter_2.pth')
    assert list(checkpoint['meta']['dataset_meta']['classes']) == NAMES
    assert all(len(checkpoint['state_dict'][f'{layer}.weight']) == len(NAMES) for layer in layers)

    tested = _command(
        *TEST, CUSTOM, 'work_dirs/' + CUSTOM.stem + '/iter_2.pth', '--cfg-options', *options, cwd=own_data
    )
    assert _unexplained(tested) == []
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= _figures(work_dir).keys()


@pytest.mark.slow
def test_headline_config_in_full_size(shared: Path) -> None:
    """VoVNetV2-99 at 800/1333: finite losses, and a gradient for all that trains."""
    config = Config.fromfile(HEADLINE)
    config.model.backbone.init_cfg = None
    data = config.train_dataloader.dataset
    data.update(data_root=f'{shared}/data/coco6', ann_file='instances.json', data_prefix=dict(img='images'))
    data.pipeline[3].scale = [(1333, 800), (1333, 800)]
    sample = DATASETS.build(data)[0]
    assert sample['inputs'].shape == (3, 800, 1199) and len(sample['data_samples'].gt_instances) == 16

    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    batch = model.data_preprocessor(pseudo_collate([sample]), training=True)
    _fill_norms(model.backbone, batch['inputs'])
    losses = model.train().loss(batch['inputs'], batch['data_samples'])
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou'}
    assert all(0 < loss.item() < 2 for loss in losses.values())

    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = '.bn.' in name
        assert parameter.requires_grad is not frozen, name
        if frozen:
            assert parameter.grad is None, name
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@torch.no_grad()
def _fill_norms(backbone: torch.nn.Module, images: torch.Tensor) -> None:
    """Set frozen BN to the statistics of these images; with random convs features would grow 1e5 times."""
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum, norm.eps = 1.0, 1e-5  # torch refuses to train with the config's epsilon of 0
    backbone(images)
    for norm in norms:
        norm.eps = 0
