"""Parameters and operations of models."""

from pathlib import Path

import pytest
from helpers.read_configs import read_config
from torch import nn

from centermask.tables.index import Index
from centermask.tables.measure import build, count_flops, count_parameters, input_size
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

SLIM = 'centermask-lite-star_v2-19-slim_fpn_4x_coco'
MEASURED = [  # one of each kind of model
    'fcos_r50_fpn_1x_coco',
    'centermask-lite_mobilenetv2_fpn_4x_coco',
    'centermask-star_v2-39-dcn_fpn_3x_coco',
    'mask-rcnn_r101_fpn_2x_coco',
    'retinamask_r101_fpn_2x_coco',
    'yolact-550_r50_coco',
]


@pytest.mark.parametrize('name', MEASURED)
def test_flops_of_the_index(name: str) -> None:
    """They are what the command measures."""
    text = (CONFIGS / 'metafile.yml').read_text().partition(f'  - Name: {name}\n')[2]
    assert f'      FLOPs: {count_flops(read_config(name))}\n' in text.partition('  - Name: ')[0]


def test_parameters_outside_the_tables(index: Index) -> None:
    """The index's counts of configs that the check of the tables doesn't build."""
    text = (CONFIGS / 'metafile.yml').read_text()
    in_tables = {row.config for row in index.rows}
    others = [name for name in index.configs if name not in in_tables]
    assert others
    for name in others:
        entry = text.partition(f'  - Name: {name}\n')[2].partition('  - Name: ')[0]
        assert f'      Parameters: {count_parameters(build(read_config(name)))}\n' in entry, name


def test_parameters_without_those_of_norms() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.SyncBatchNorm(4))
    assert count_parameters(model) == (3 * 4 + 4) + 2 * 4


def test_operations_of_parts() -> None:
    """What a part adds is what it computes on 50 RoIs: by hand, two operations for a multiplication and an addition."""
    flops = {
        name: count_flops(read_config(f'centermask_r50{name}_fpn_1x_coco')) for name in ('-eq1', '-eq2', '-sam', '')
    }
    assert flops['-eq1'] == flops['-eq2']
    assert flops['-sam'] - flops['-eq2'] == 50 * 14 * 14 * (2 * 3 * 3) * 2
    convs = 14 * 14 * (257 * 256 * 9 + 2 * 256 * 256 * 9) + 7 * 7 * 256 * 256 * 9
    linear = 256 * 7 * 7 * 1024 + 1024 * 1024
    assert flops[''] - flops['-sam'] == 50 * (convs + linear) * 2


def test_operations_of_deformable_convs() -> None:
    """As of ordinary ones, and the convolutions of offsets and masks: 27 channels each."""
    plain, deformable = (count_flops(read_config(f'centermask-star_v2-39{kind}_fpn_3x_coco')) for kind in ('', '-dcn'))
    stages = (  # of stages 3, 4, 5: positions, modules, input's and convs' channels
        (100 * 168, [(256, 160)]),
        (50 * 84, [(512, 192), (768, 192)]),
        (25 * 42, [(768, 224), (1024, 224)]),
    )
    of_offsets = sum(
        positions * 27 * 9 * (first + 4 * width) for positions, modules in stages for first, width in modules
    )
    assert deformable - plain == 2 * of_offsets


@pytest.mark.parametrize(
    'name, size',
    [
        ('centermask_r50_fpn_1x_coco', (800, 1333)),
        (SLIM, (600, 1000)),
        ('yolact-400_r101_coco', (400, 400)),
    ],
)
def test_input_size(name: str, size: tuple[int, int]) -> None:
    assert input_size(read_config(name)) == size


def test_a_model_that_cant_be_built(tmp_path: Path) -> None:
    config = read_config(SLIM)
    config.model.neck.type = 'Nothing'
    with pytest.raises(InputError, match=r"The model of .* can't be built: .*Nothing"):
        build(config)
