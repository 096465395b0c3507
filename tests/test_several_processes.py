"""Training and testing in several processes give the results of one process."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.several_processes import CASES, PAPER, STAR, Job, gradients, in_processes, own_gradients, results
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor

from centermask.datasets.shapes import make_dataset
from centermask.engine.inferencer import CenterMaskInferencer

pytestmark = [
    pytest.mark.slow,  # three processes start first
    pytest.mark.skipif(torch.cuda.is_available(), reason='processes on a GPU machine need a GPU each'),
]


@pytest.fixture(scope='module')
def evaluation_files(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a config and a checkpoint of random weights with an AP between 0 and 1.

    Ground truth of its seven images is a part of the detections of these weights, some of them moved.
    """
    folder = tmp_path_factory.mktemp('evaluation')
    make_dataset(folder / 'val', 7, seed=2)
    annotations = folder / 'val/annotations.json'
    config = folder / 'config.py'
    config.write_text(f"""
_base_ = '{tiny_config}'
data = dict(data_root='{folder}/', ann_file='val/annotations.json')
val_dataloader = dict(batch_size=1, dataset=data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{annotations}')
test_evaluator = val_evaluator
""")
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 2.0)  # boxes of some size
    torch.nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 0.5)  # masks that cover them
    torch.save({'state_dict': model.state_dict()}, folder / 'random.pth')

    inferencer = CenterMaskInferencer(cfg, str(folder / 'random.pth'), 'cpu')
    coco = json.loads(annotations.read_text())
    coco['annotations'] = []
    for image in coco['images']:
        found = inferencer(str(folder / 'val/images' / image['file_name']))['predictions'][0]
        for i in range(image['id'] % 2, min(8, len(found['labels'])), 2):
            (x1, y1, x2, y2), shift = found['bboxes'][i], i * (image['id'] % 3)
            entry = dict(image_id=image['id'], category_id=found['labels'][i] + 1, iscrowd=0)
            corners = [x1, y1, x2 + shift, y1, x2 + shift, y2, x1, y2]
            entry |= dict(
                id=len(coco['annotations']) + 1, bbox=[x1, y1, x2 - x1 + shift, y2 - y1], segmentation=[corners]
            )
            coco['annotations'].append(entry)
    annotations.write_text(json.dumps(coco))
    return str(config), str(folder / 'random.pth')


@pytest.fixture(scope='module')
def returned(evaluation_files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, list]:
    """Return what each process returned: gradients by recipe and case, results by the number of processes."""
    folder = tmp_path_factory.mktemp('processes')
    jobs: dict[Any, Job] = {
        (recipe, case): (2, own_gradients, (recipe, case)) for recipe in (STAR, PAPER) for case in CASES
    }
    jobs |= {count: (count, results, (*evaluation_files, 'pytorch')) for count in (2, 3)}
    return dict(zip(jobs, in_processes(list(jobs.values()), folder), strict=True))


def _assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.parametrize('case', CASES)
def test_star_recipe_has_the_gradients_of_one_process(returned: dict, case: str) -> None:
    """Two processes with an image each equal one with both: each normaliser is averaged over the processes."""
    expected = gradients(STAR, dict(enumerate(CASES[case])))
    assert any(gradient.any() for gradient in expected.values())
    for found in returned[STAR, case]:
        _assert_equal(found, expected)


@pytest.mark.parametrize('case', CASES)
def test_paper_recipe_averages_gradients(returned: dict, case: str) -> None:
    """Each process divides by its own counts, so gradients are the mean of those of each process alone."""
    first, second = (gradients(PAPER, {i: objects}) for i, objects in enumerate(CASES[case]))
    expected = {name: (first[name] + second[name]) / 2 for name in first}
    for found in returned[PAPER, case]:
        _assert_equal(found, expected)


def test_evaluation_is_the_same_in_any_number_of_processes(returned: dict, evaluation_files: tuple[str, str]) -> None:
    """With seven images the last round is incomplete for two and for three processes."""
    expected, images = results(*evaluation_files, 'none')
    assert images == 7 and 0.05 < expected['coco/segm_mAP'] < 0.95
    for count, images_each in ((2, 4), (3, 3)):
        assert returned[count][0] == (expected, images_each)
