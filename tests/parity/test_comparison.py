"""Parity with the released implementations, and tests that every deviation from a reference is reported."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.read_configs import find_config
from helpers.small_model import small_model
from helpers.small_reference import as_in_files, computed_by, write_config, write_inputs
from mmengine.config import Config
from torch import nn

from centermask.vovnet import VARIANTS
from parity import compare_with_reference, read_arrays
from parity.centermask import DETECTIONS, OF_MASK_SCORING, STEPS, batch, kinds_of
from parity.comparison import Arrays, Computed, compare
from parity.inputs import read_inputs
from parity.model import build_reference_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.mark.parametrize(
    ('config', 'reference', 'count'),
    [
        ('centermask-lite-star_v2-19-slim_fpn_4x_coco', 'star/lite_V_19_slim', 139),
        ('centermask-lite_v2-39_fpn_4x_coco', 'paper/lite_V_39', 131),
        pytest.param('centermask-star_v2-39_fpn_3x_coco', 'star/V_39', 139, marks=pytest.mark.slow),
        pytest.param('centermask-star_r50_fpn_3x_coco', 'star/R_50', 139, marks=pytest.mark.slow),
        pytest.param('centermask_r50_fpn_1x_coco', 'paper/R_50', 131, marks=pytest.mark.slow),
        pytest.param('panoptic-centermask-star_r50_fpn_3x_coco', 'star/panoptic_R_50', 245, marks=pytest.mark.slow),
        pytest.param('tensormask_r50_fpn_1x_coco', 'baselines/tensormask_R_50', 357, marks=pytest.mark.slow),
    ],
)
def test_every_array_of_a_release(shared: Path, config: str, reference: str, count: int) -> None:
    expected = read_arrays(shared / f'parity/{reference}.npz', 'expected file')
    rows = compare_with_reference(Config.fromfile(find_config(config)), expected, shared / 'parity/inputs.npz')
    assert [row.name for row in rows] == list(expected)
    assert len(rows) == count
    assert [str(row) for row in rows if not row.ok] == []
    # The tolerances are not empty, and the arrays are not compared with themselves.
    assert all(row.tolerance > 0 or row.unit == 'number' for row in rows)
    assert any(row.deviation > 0 for row in rows)


@pytest.fixture(scope='module', params=['star', 'paper'])
def recipe(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def folder(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(recipe)
    write_config(folder, recipe)
    write_inputs(folder)
    return folder


@pytest.fixture(scope='module')
def computed(folder: Path) -> Arrays:
    return computed_by(folder / 'config.py', folder / 'inputs.npz').arrays


@pytest.fixture
def expected(computed: Arrays) -> Arrays:
    return as_in_files(computed)


@pytest.fixture(scope='module')
def kinds() -> tuple:
    return kinds_of(small_model())


@pytest.fixture
def wrong(kinds: tuple) -> Callable[..., list[str]]:
    """Return a function that names the arrays that aren't ok."""

    def names(computed: Arrays, expected: Arrays, lacking: str = '(?!)', kinds: tuple = kinds) -> list[str]:
        rows = compare(Computed(computed, kinds, DETECTIONS, STEPS, lacking), expected)
        return [row.name for row in rows if not row.ok]

    return names


def test_agrees_with_itself(computed: Arrays, expected: Arrays, recipe: str, wrong: Callable) -> None:
    assert wrong(computed, expected) == []
    groups = {name.split('.')[0] for name in expected}
    assert groups >= {'backbone', 'fpn', 'fcos', 'roi', 'mask', 'det', 'loss', 'grad', 'train', 'multi', 'bias3'}
    assert ('raw.boxes' in expected) == ('bias3.raw.boxes' in expected) == (recipe == 'star')
    assert expected['train.positives'] >= 1 and expected['multi.train.positives'] >= 3
    assert len(expected['bias3.det.boxes']) > 1


def test_detections_are_the_models(folder: Path, computed: Arrays) -> None:
    """``det.*`` are the detections that ``predict`` returns."""
    model, _ = build_reference_model(Config.fromfile(folder / 'config.py'))
    nn.init.constant_(model.bbox_head.conv_reg.bias, 3)
    with torch.no_grad():
        found = model.eval().predict(*batch(model, read_inputs(folder / 'inputs.npz').single))[0].pred_instances
    arrays = {f'bias3.det.{kind}': getattr(found, name).numpy() for kind, name in FIELDS.items()}
    arrays['bias3.det.mask_areas'] = found.masks.sum((1, 2)).numpy()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, computed[name], rtol=1e-4, atol=1e-4, err_msg=name)


FIELDS = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels', 'mask_scores': 'mask_scores'}


def _add(amount: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array + np.float32(amount)


def _times(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array * factor


@pytest.mark.parametrize(
    ('name', 'within', 'beyond'),
    [
        ('backbone.c4', lambda a: a + 4e-5 * a[1], lambda a: a + 6e-5 * a[1]),
        ('fpn.p7', lambda a: a + 4e-5 * a[1], lambda a: a - 6e-5 * a[1]),
        ('fcos.box.p3', lambda a: a + 2e-4 * a[1], lambda a: a + 4e-4 * a[1]),
        ('roi.features', lambda a: a + 2e-4 * a[1], lambda a: a + 4e-4 * a[1]),
        ('bias3.det.mask_probs', lambda a: a + 2e-4 * a[1], lambda a: a + 4e-4 * a[1]),
        ('mask.logits', _times(1 + 4e-5), _times(1 + 6e-5)),
        ('mask.iou', _times(1 - 4e-5), _times(1 - 6e-5)),
        ('bias3.det.mask_scores', _times(1 + 4e-5), _times(1 + 6e-5)),
        ('bias3.det.scores', _times(1 + 9e-5), _times(1 + 2e-4)),
        ('bias3.det.boxes', _add(0.009), _add(0.011)),
        ('bias3.det.mask_areas', _add(-2), _add(3)),
        ('loss.cls', _times(1 + 9e-5), _times(1 + 2e-4)),
        ('multi.loss.maskiou', _times(1 + 9e-5), _times(1 + 2e-4)),
        ('bias3.train.positives', _add(0), _add(1)),
    ],
)
def test_tolerance(
    computed: Arrays, expected: Arrays, name: str, within: Callable, beyond: Callable, wrong: Callable
) -> None:
    assert wrong(computed, {**expected, name: within(expected[name])}) == []
    assert wrong(computed, {**expected, name: beyond(expected[name])}) == [name]


def test_tolerance_of_gradients(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    name = next(name for name in expected if name.startswith('multi.grad.') and expected[name] > 0)
    for factor, arch, names in ((1.004, '57', []), (1.006, '57', [name]), (1.006, '99', []), (1.011, '99', [name])):
        widths = list(VARIANTS[arch].out_widths[1:])
        model = small_model(changes={'backbone.arch': arch, 'neck.in_channels': widths})
        changed = {**expected, name: expected[name] * factor}
        assert wrong(computed, changed, kinds=kinds_of(model)) == names


@pytest.mark.parametrize('name', ['loss.box', 'grad.x'])
def test_where_0_is_expected(computed: Arrays, expected: Arrays, name: str, wrong: Callable) -> None:
    """A loss or gradient of 1e-6 counts as 0."""
    for value, names in ((0.9e-6, []), (1.1e-6, [name])):
        assert wrong({**computed, name: np.array(value)}, {**expected, name: np.array(0.0)}) == names


def test_map_of_zeros(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    """A map without deviation has no scale: the model's has to be 0 too."""
    zeros = {**computed, 'fcos.box.p7': np.zeros((1, 4, 1, 1), np.float32)}
    assert wrong(zeros, {**expected, 'fcos.box.p7': np.zeros(258, np.float32)}) == []
    assert wrong(computed, {**expected, 'fcos.box.p7': np.zeros(258, np.float32)}) == ['fcos.box.p7']


def test_logit_near_0(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    """The deviation is relative to the largest logit, not to the logit itself."""
    logits = expected['mask.logits'].astype(np.float64)
    logits[0, 0, 0] = 0
    for part, names in ((4e-5, []), (6e-5, ['mask.logits'])):
        found = logits.copy()
        found[0, 0, 0] = part * np.abs(logits).max()
        assert wrong({**computed, 'mask.logits': found}, {**expected, 'mask.logits': logits}) == names


@pytest.mark.parametrize('name', ['backbone.c3', 'bias3.det.labels'])
def test_array_that_the_file_lacks(computed: Arrays, expected: Arrays, name: str, wrong: Callable) -> None:
    del expected[name]
    assert wrong(computed, expected) == [name]


def test_gradients_that_the_file_lacks(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    """The file chooses which gradients it lists, but at least one is needed."""
    one = next(name for name in expected if name.startswith('multi.grad.'))
    without = {name: array for name, array in expected.items() if not name.startswith('multi.grad.')}
    assert wrong(computed, {**without, one: expected[one]}) == []
    assert wrong(computed, without) == ['multi.grad.*']


@pytest.mark.parametrize('name', ['backbone.c9', 'grad.no.such.weight'])
def test_array_that_the_model_lacks(computed: Arrays, expected: Arrays, name: str, wrong: Callable) -> None:
    assert wrong(computed, {**expected, name: np.zeros(258, np.float32)}) == [name]


@pytest.mark.parametrize('name', ['fcos.cls.p4', 'bias3.det.scores'])
def test_other_shape(computed: Arrays, expected: Arrays, name: str, wrong: Callable) -> None:
    assert wrong(computed, {**expected, name: expected[name][..., None]}) == [name]


@pytest.mark.parametrize('name', ['fpn.p5', 'bias3.det.boxes'])
def test_not_a_number(computed: Arrays, expected: Arrays, name: str, wrong: Callable) -> None:
    assert wrong(computed, {**expected, name: np.full_like(expected[name], np.nan)}) == [name]


def test_frozen_parameters_have_no_gradient(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    (name, *_) = (name for name in computed if name.startswith('grad.') and np.isnan(computed[name]))
    assert wrong(computed, {**expected, name: np.array(1.0)}) == [name]


def test_detections_in_another_order(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    """Detections are matched by label and box, and all their arrays are reordered alike."""
    moved = {name: array[::-1] if name.startswith('bias3.det.') else array for name, array in computed.items()}
    assert not np.array_equal(moved['bias3.det.scores'], computed['bias3.det.scores'])
    assert wrong(moved, expected) == []
    moved['bias3.det.mask_probs'] = computed['bias3.det.mask_probs']  # stays behind
    assert wrong(moved, expected) == ['bias3.det.mask_probs']


def test_one_detection_less(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    fewer = {name: array[:-1] if name.startswith('bias3.det.') else array for name, array in computed.items()}
    assert {f'bias3.det.{kind}' for kind in (*FIELDS, 'mask_areas')} <= set(wrong(fewer, expected))


def test_other_class(computed: Arrays, expected: Arrays, wrong: Callable) -> None:
    labels = expected['bias3.det.labels'].copy()
    labels[0] = (labels[0] + 1) % 3
    assert 'bias3.det.labels' in wrong(computed, {**expected, 'bias3.det.labels': labels})


def test_no_detections(computed: Arrays, wrong: Callable) -> None:
    none = {name: array[:0] if name.startswith('det.') else array for name, array in computed.items()}
    expected = as_in_files(none)
    assert expected['det.boxes'].shape == (0, 4) and expected['det.mask_probs'].shape == (0,)
    assert wrong(none, expected) == []
    assert 'det.boxes' in wrong(computed, expected)


def test_without_mask_scoring(folder: Path, computed: Arrays, wrong: Callable) -> None:
    config = Config.fromfile(folder / 'config.py')
    config.model.roi_head.mask_iou_head = None
    config.dump(folder / 'unscored.py')
    unscored = computed_by(folder / 'unscored.py', folder / 'inputs.npz')
    assert unscored.lacking == OF_MASK_SCORING
    unscored = unscored.arrays
    assert set(computed) - set(unscored) >= {'mask.iou', 'loss.maskiou', 'multi.loss.maskiou', 'bias3.loss.maskiou'}
    np.testing.assert_array_equal(unscored['det.mask_scores'], unscored['det.scores'])

    expected = as_in_files(unscored)
    assert wrong(unscored, expected, lacking=OF_MASK_SCORING) == []
    empty = {'mask.iou': np.zeros(0), 'loss.maskiou': np.zeros(0), 'bias3.det.mask_scores': np.zeros(0)}
    assert wrong(unscored, {**expected, **empty}, lacking=OF_MASK_SCORING) == []
    assert wrong(unscored, {**expected, 'mask.iou': np.zeros(3)}, lacking=OF_MASK_SCORING) == ['mask.iou']
    assert 'mask.iou' in wrong(unscored, as_in_files(computed), lacking=OF_MASK_SCORING)


def test_frozen_norms_only_round_otherwise(folder: Path) -> None:
    """The references' order of multiplication and addition gives torch's result and gradient up to rounding."""
    model, recipe = build_reference_model(Config.fromfile(folder / 'config.py'))
    norm = next(module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    x = torch.randn(2, norm.num_features, 5, 5, requires_grad=True)
    found, expected = norm(x), nn.BatchNorm2d.forward(norm, x)
    assert torch.allclose(found, expected, atol=1e-5) and not torch.equal(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)
    x = x.detach()
    assert torch.equal(norm(x), nn.BatchNorm2d.forward(norm, x)) == (recipe == 'star')
    if norm.eps:
        assert torch.equal(norm.train()(x), nn.BatchNorm2d.forward(norm, x))  # statistics of the batch stay so


def test_area_ratio_of_each_recipe(folder: Path, recipe: str) -> None:
    """Configs of both recipes use star's area ratio; the paper release's numbers come from its own."""
    cfg = Config.fromfile(folder / 'config.py')
    assert cfg.model.roi_head.mask_iou_head.get('area_ratio', 'all_polygons') == 'all_polygons'
    model, found = build_reference_model(cfg)
    assert found == recipe
    assert model.roi_head.mask_iou_head.area_ratio == ('all_polygons' if recipe == 'star' else 'first_polygon')


def test_restores_the_number_of_threads(folder: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    computed_by(folder / 'config.py', folder / 'inputs.npz')
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
