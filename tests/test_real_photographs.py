"""Real input: six photographs of COCO through the release's configs, by the commands that people run.

ImageNet's weights may be out of reach, so models start from random ones and train BN.
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

import mmdet
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from centermask.datasets.shapes import make_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
LITE = REPOSITORY / 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
STAR = REPOSITORY / 'configs/centermask-star_v2-39_fpn_3x_coco.py'
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

# What a run may say, all of it MMEngine's own, and why.
WARNING = re.compile(r'\w*Warning: | - (WARNING|ERROR|CRITICAL) - |^\[ ?W')
KNOWN_WARNINGS = {
    '"FileClient" will be deprecated in future': 'CheckpointHook makes one before every training',
    '"HardDiskBackend" is the alias of "LocalBackend"': 'that FileClient makes one',
    'Advance dataloader ': 'IterBasedTrainLoop says so on resuming; our runner hands it empty batches',
    'is skipped since its requires_grad=False': 'its optimisers take no frozen BN, and it names every tensor',
}


class Training(NamedTuple):
    """A training that is finished and tested: its folder, what all its commands said, and the test's folder."""

    work_dir: Path
    options: list[str]  # that point its config to the photographs
    output: str
    tested: Path

    @property
    def checkpoint(self) -> Path:
        return Path((self.work_dir / 'last_checkpoint').read_text())


def _command(*words: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run a command to its good end and return all that it printed."""
    done = subprocess.run([*map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def _scale(width: int, height: int) -> list[str]:
    scale = f'({width},{height})'
    val, test = (f'{loader}_dataloader.dataset.pipeline.1.scale={scale}' for loader in ('val', 'test'))
    return [f'train_dataloader.dataset.pipeline.2.scales=[{scale}]', val, test]


def _scalars(work_dir: Path) -> list[dict]:
    """All that the runs in a folder logged, in the order of time."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def _figures(work_dir: Path) -> dict[str, float]:
    """The AP figures that the last run in a folder logged."""
    logs = sorted(work_dir.rglob('2*.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    last = [line for line in lines if 'coco/bbox_mAP' in line][-1]
    return {key: value for key, value in last.items() if key.startswith('coco/')}


def _predictions(path: Path) -> dict[int, dict]:
    """What ``--out`` wrote, by the images' ids."""
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
        iterations, scale = {LITE: (20, _scale(320, 256)), STAR: (16, _scale(256, 192))}[config]
        work_dir = tmp_path_factory.mktemp(config.stem)
        command = [*TRAIN, config, '--work-dir', work_dir]
        options = [*common, *scale]
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
@pytest.mark.parametrize('config', [LITE, STAR], ids=['lite', 'star'])
def test_trains_resumes_and_is_tested(config: Path, train: Callable[[Path], Training]) -> None:
    training = train(config)
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
def test_mim_tests_with_augmentation(train: Callable[[Path], Training], tmp_path: Path) -> None:
    """``mim test mmdet CONFIG --checkpoint CKPT --tta`` finds what tools/test.py finds."""
    training = train(LITE)
    scales = [f'tta_pipeline.1.transforms.0.{i}.scale=({w},{h})' for i, (w, h) in enumerate([(240, 192), (320, 256)])]
    scales.append('tta_pipeline.1.transforms.0.2.scale=(400,320)')
    options = ['--tta', '--cfg-options', *training.options, *scales]
    ours = [*TEST, LITE, training.checkpoint, '--work-dir', tmp_path / 'ours', '--out', tmp_path / 'ours.pkl']
    mim = [MIM, 'test', 'mmdet', LITE, '--checkpoint', training.checkpoint, '--work-dir', tmp_path / 'mim']
    _command(*ours, *options)
    _command(*mim, '--out', tmp_path / 'mim.pkl', *options)
    assert _figures(tmp_path / 'mim') == _figures(tmp_path / 'ours')
    files = (tmp_path / 'mim.pkl', tmp_path / 'ours.pkl', training.tested / 'predictions.pkl')
    theirs, mine, plain = (_predictions(path)[CROWDED] for path in files)
    assert torch.equal(theirs['mask_scores'], mine['mask_scores']) and theirs['masks'] == mine['masks']
    assert not torch.equal(plain['mask_scores'], mine['mask_scores'])


@pytest.mark.slow
def test_mmdet_apis(train: Callable[[Path], Training], shared: Path) -> None:
    """With the config that a training leaves in its folder, on a photograph, silently."""
    training = train(LITE)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model = init_detector(str(training.work_dir / LITE.name), str(training.checkpoint), device='cpu')
        result = inference_detector(model, str(shared / f'data/coco6/images/{CROWDED:012}.jpg'))
    found, expected = result.pred_instances, _predictions(training.tested / 'predictions.pkl')[CROWDED]
    assert len(model.dataset_meta['classes']) == 80
    assert len(found) > 0 and torch.allclose(found.bboxes, expected['bboxes'], atol=1e-3)
    assert torch.allclose(found.mask_scores, expected['mask_scores'], atol=1e-4)
    assert found.masks.shape == (len(found), 640, 586) and found.masks.dtype == torch.bool


@pytest.fixture
def coco(shared: Path, tmp_path: Path) -> Path:
    """A folder in which the photographs lie at data/coco/, where the configs look for COCO."""
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


def test_flops(coco: Path) -> None:
    """MMDetection's get_flops.py counts the photographs' work at the size that the config resizes them to."""
    script = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools/get_flops.py'
    output = _command(sys.executable, script, LITE, '--num-images', '1', cwd=coco)
    config = Config.fromfile(LITE)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert f'Params: {sum(p.numel() for p in model.parameters()) / 1e6:.3f}M' in output
    # 640×427 becomes 899×600, and sides are padded to multiples of 32.
    assert re.search(r'Input shape: \((928, 608|608, 928)\)', output)
    assert 30 < float(re.search(r'Flops: ([\d.]+)G', output)[1]) < 60


NAMES = ['cup', 'plate', 'fork', 'knife', 'spoon']


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A folder with data/custom/ as the example for own data names its files; the shapes under other names and ids."""
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
    """Give frozen BN the statistics of these images: with random convs, the identity lets features grow 1e5 times."""
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum, norm.eps = 1.0, 1e-5  # torch refuses to train with the config's epsilon of 0
    backbone(images)
    for norm in norms:
        norm.eps = 0
