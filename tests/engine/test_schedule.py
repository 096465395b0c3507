"""A config fitted to own data: classes, files, heads, and a schedule by the number of images and the batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.read_configs import find_config
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from centermask.engine.schedule import COCO_IMAGES, fit_config
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
IMAGES = 3000
OBJECT = {'bbox': [0, 0, 5, 5], 'area': 25, 'iscrowd': 0, 'segmentation': [[0, 0, 5, 0, 5, 5, 0, 5]]}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes; 3000 images to train on, of which the first is there."""
    folder = tmp_path_factory.mktemp('DIR')
    (folder / '0.jpg').touch()
    for name, count in (('train', IMAGES), ('val', 1)):
        file = {
            'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
            'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 8, 'height': 8} for i in range(count)],
            'annotations': [dict(OBJECT, id=i, image_id=i, category_id=1 + i % 2) for i in range(count)],
        }
        (folder / f'{name}.json').write_text(json.dumps(file))
    return folder


@pytest.fixture
def fit(data: Path, tmp_path: Path) -> Callable[..., Config]:
    def fit(config: str, launcher: str = 'none', **options: object) -> Config:
        cfg = Config.fromfile(find_config(config))
        cfg.launcher = launcher
        fit_config(cfg, data, tmp_path, {key.replace('__', '.'): value for key, value in options.items()})
        return cfg

    return fit


def test_data_and_heads(fit, data: Path) -> None:
    cfg = fit('centermask-lite-star_v2-19_fpn_4x_coco')
    assert cfg.model.num_classes == 2
    for mode, file in (('train', 'train.json'), ('val', 'val.json'), ('test', 'val.json')):
        dataset = cfg[f'{mode}_dataloader'].dataset
        assert dataset.ann_file == str(data / file) and dataset.data_prefix.img == f'{data}/'
        assert dataset.metainfo.classes == ('cat', 'dog')
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(data / 'val.json')
    assert cfg.data_root == ''
    assert cfg.model.backbone.init_cfg
    assert fit('centermask-lite-star_v2-19_fpn_4x_coco', load_from='x.pth').model.backbone.init_cfg is None


@pytest.mark.parametrize('config', ['mask-rcnn_r101_fpn_2x_coco', 'yolact-550_r50_coco'])
def test_heads_of_other_methods(fit, config: str) -> None:
    model = fit(config).model
    heads = (model.bbox_head, model.mask_head) if 'bbox_head' in model else model.roi_head.values()
    numbers = [head['num_classes'] for head in heads if isinstance(head, dict) and 'num_classes' in head]
    assert len(numbers) >= 2 and set(numbers) == {2}


def test_schedule_makes_as_many_passes_as_the_recipe(fit, capsys: pytest.CaptureFixture) -> None:
    cfg = fit('centermask-lite-star_v2-19_fpn_4x_coco')  # 360 000 iterations of 16 images; here of 2
    passes = 360_000 * 16 / COCO_IMAGES
    total = cfg.train_cfg.max_iters
    assert total * 2 == pytest.approx(passes * IMAGES, rel=1e-3)
    warm_up, steps = cfg.param_scheduler
    assert steps.milestones == [pytest.approx(total * 300 / 360, abs=1), pytest.approx(total * 340 / 360, abs=1)]
    assert warm_up.end == round(min(1001 * 8, total / 10))
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == round(total / 10)
    # MMEngine scales the rate itself, by the number of processes that there really are.
    assert cfg.auto_scale_lr == {'enable': True, 'base_batch_size': 16}
    text = capsys.readouterr().out
    assert f'Schedule: {total} iterations of 2 images (49 passes over 3000 images' in text
    assert 'learning rate 0.00125' in text


def test_schedule_by_batch_and_processes(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '4')
    one = fit('centermask_r50_fpn_2x_coco').train_cfg.max_iters
    assert fit('centermask_r50_fpn_2x_coco', launcher='pytorch').train_cfg.max_iters == pytest.approx(one / 4, abs=1)
    larger = fit('centermask_r50_fpn_2x_coco', train_dataloader__batch_size=6).train_cfg.max_iters
    assert larger == pytest.approx(one / 3, abs=1)


def test_small_data_get_a_least_number_of_images(fit) -> None:
    # 1x is 12 passes, of 3000 images 37 000; with a tenth of the images it would be 3700.
    assert fit('centermask_r50_fpn_1x_coco').train_cfg.max_iters * 2 == pytest.approx(36_840, rel=1e-2)


def test_iterations_of_the_user_scale_the_rest(fit) -> None:
    cfg = fit('centermask-lite-star_v2-19_fpn_4x_coco', train_cfg__max_iters=100)
    assert cfg.train_cfg.max_iters == 100 and cfg.train_cfg.val_interval == 10
    assert cfg.param_scheduler[0].end == 10 and cfg.param_scheduler[1].milestones == [83, 94]
    assert cfg.default_hooks.logger.interval == 5
    with pytest.raises(InputError, match=r'train_cfg\.max_iters=0: give a number of iterations'):
        fit('centermask-lite-star_v2-19_fpn_4x_coco', train_cfg__max_iters=0)


def test_the_line_shows_the_rate_that_is_trained_with(fit, capsys: pytest.CaptureFixture) -> None:
    fit('centermask-lite-star_v2-19_fpn_4x_coco')  # 0.01 for 16 images; here 2
    assert 'learning rate 0.00125,' in capsys.readouterr().out
    fit('centermask-lite-star_v2-19_fpn_4x_coco', optim_wrapper__optimizer__lr=0.04)
    assert 'learning rate 0.005,' in capsys.readouterr().out
    fit('centermask-lite-star_v2-19_fpn_4x_coco', auto_scale_lr__enable=False)
    assert 'learning rate 0.01,' in capsys.readouterr().out
    fit('centermask-lite-star_v2-19-slim_shapes', optim_wrapper__optimizer__lr=0.003, train_dataloader__batch_size=1)
    assert 'learning rate 0.003,' in capsys.readouterr().out


def test_recipe_that_is_not_for_coco_keeps_its_length(fit) -> None:
    cfg = fit('centermask-lite-star_v2-19-slim_shapes', train_cfg__max_iters=90)
    # The cosine begins where the warm-up ends.
    assert [(s.get('begin'), s.end) for s in cfg.param_scheduler] == [(0, 9), (9, 90)]
    assert fit('centermask-lite-star_v2-19-slim_shapes').train_cfg.max_iters == 900


@pytest.mark.parametrize('iterations', [1, 2, 14])
@pytest.mark.parametrize('config', ['centermask-lite-star_v2-19-slim_shapes', 'centermask_x101_fpn_2x_coco'])
def test_few_iterations_need_no_warm_up(fit, config: str, iterations: int) -> None:
    """MMEngine's warm-ups reach the full rate in their last iteration, which is the first here."""
    schedulers = fit(config, train_cfg__max_iters=iterations).param_scheduler
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    built = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer)) for scheduler in schedulers]
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    full = 2 if iterations > 2 else 1
    assert rates[:full] == [1.0] * full


def test_config_without_coco_data(data: Path, tmp_path: Path) -> None:
    (tmp_path / 'voc.py').write_text("train_dataloader = dict(dataset=dict(type='VOC'))")
    cfg = Config.fromfile(tmp_path / 'voc.py')
    with pytest.raises(InputError, match=r"the config .*voc\.py has no train_dataloader\.dataset that reads COCO's"):
        fit_config(cfg, data, tmp_path, {})


def test_boxes_alone_are_refused(data: Path) -> None:
    content = json.loads((data / 'train.json').read_text())
    for annotation in content['annotations']:
        del annotation['segmentation']
    boxes = data.parent / 'boxes'
    boxes.mkdir()
    for name in ('train', 'val'):
        (boxes / f'{name}.json').write_text(json.dumps(content))
    (boxes / '0.jpg').touch()
    cfg = Config.fromfile(find_config('centermask-lite-star_v2-19_fpn_4x_coco'))
    cfg.launcher = 'none'
    with pytest.raises(InputError, match='has no object that can be trained on, with a mask and a box: tools/check'):
        fit_config(cfg, boxes, data.parent, {})
