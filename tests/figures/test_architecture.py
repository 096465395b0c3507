"""Fig. 2: what is measured of a model, and what the SVG says."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest

from centermask.engine.configs import load_config
from centermask.utils.errors import InputError
from centermask.figures.architecture import measure
from centermask.figures.architecture_drawing import draw_architecture

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def _config(name: str, **options):
    return load_config(CONFIGS / f'{name}.py', options)


def _texts(config, folder: Path) -> list[str]:
    draw_architecture(config, 'a title', folder / 'architecture.svg')
    root = ElementTree.parse(folder / 'architecture.svg').getroot()
    assert root.tag.endswith('svg')
    return [element.text for element in root.iter() if element.tag.endswith('text')]


def test_svg_says_what_is_built(tmp_path: Path) -> None:
    texts = _texts(_config('centermask_v2-39_fpn_1x_coco'), tmp_path)
    for text in (
        'a title',
        *(
            'Stem',
            '128×200×336',
            'Stage 3',
            '512×100×168',
            'Stage 5',
            '2 × OSA of 5 convs, eSE, residual',
            '1024×25×42',
        ),
        *('P3', '256×100×168', 'P7', 'stride 128', '256×7×11', 'feature pyramid (FPN)'),
        *('classes   80×100×168', 'centerness   1×100×168', '4 × 3×3 conv, GN'),
        *('SAM', '256×14×14', '81×28×28', 'each box is pooled from one of P3 to P5, by Eq. 2'),
        *('257×14×14', '256×7×7', 'mask IoU'),
    ):
        assert text in texts, text


def test_svg_follows_the_config(tmp_path: Path) -> None:
    lite = _texts(_config('centermask-lite-star_v2-19-slim_fpn_4x_coco'), tmp_path)
    assert {'1 × OSA of 3 convs, eSE', '512×19×32', '128×76×128', '2 × 3×3 conv, GN', '80×28×28'} <= set(lite)
    changed = _texts(_config('centermask_r50-eq1_fpn_1x_coco', **{'model.num_classes': 7}), tmp_path)
    assert {'3 × bottleneck', '2048×25×42', 'classes   7×100×168', '8×28×28', 'mask head, for each box'} <= set(changed)
    assert 'each box is pooled from one of P3 to P5, by Eq. 1' in changed
    assert not {'SAM', 'mask IoU'} & set(changed)
    alone = _texts(_config('fcos_r50_fpn_1x_coco'), tmp_path)
    assert not any('RoIAlign' in text for text in alone)


def test_other_backbones() -> None:
    hrnet = measure(_config('centermask_hrnetv2-w18_fpn_1x_coco'))
    assert [part.title for part in hrnet.backbone] == ['C2', 'C3', 'C4', 'C5']
    assert hrnet.neck == 'HRFPN'
    assert [part.title for part in hrnet.levels] == ['P3', 'P4', 'P5', 'P6', 'P7']
    deformable = measure(_config('centermask-star_v2-39-dcn_fpn_3x_coco'))
    assert ['deformable' in part.detail for part in deformable.backbone] == [False, False, True, True, True]
    assert '8 groups' not in measure(_config('centermask_r101_fpn_1x_coco')).backbone[1].detail
    assert measure(_config('centermask_x101_fpn_1x_coco')).backbone[1].detail == '3 × bottleneck, 32 groups'
    assert measure(_config('centermask_mobilenetv2_fpn_1x_coco')).backbone[-1].shape == (320, 25, 42)


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    config = _config('fcos_r50_fpn_1x_coco')
    draw_architecture(config, '', tmp_path / 'a.svg')
    draw_architecture(config, '', tmp_path / 'b.svg')
    assert (tmp_path / 'a.svg').read_bytes() == (tmp_path / 'b.svg').read_bytes()
    draw_architecture(config, '', tmp_path / 'a.png')
    assert cv2.imread(str(tmp_path / 'a.png')).std() > 5


def test_another_detector_is_refused() -> None:
    with pytest.raises(InputError, match=r'mask-rcnn_r101_fpn_2x_coco\.py is not the config of a CenterMask'):
        measure(_config('mask-rcnn_r101_fpn_2x_coco'))


def test_the_committed_drawing_is_of_the_model_as_it_is(tmp_path: Path) -> None:
    committed = ElementTree.parse(CONFIGS.parent / 'docs/architecture.svg').getroot()
    drawn = _texts(_config('centermask_v2-39_fpn_1x_coco'), tmp_path)
    shown = [element.text for element in committed.iter() if element.tag.endswith('text')]
    assert [shown[0] if text == 'a title' else text for text in drawn] == shown
