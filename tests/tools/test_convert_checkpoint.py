"""tools/convert_checkpoint.py: one command there, the same file back, nothing of a file that is wrong."""

import pickle
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import released_files as released
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from torch import Tensor

from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures('models_built_once')
models_built_once = released.models_built_once


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def convert(tools: Callable, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in the repository."""
    monkeypatch.chdir(REPOSITORY)

    def command(*words: object) -> Result:
        capfd.readouterr()
        code = run(lambda: tools('convert_checkpoint')([str(word) for word in words]))
        return Result(code, *capfd.readouterr())

    return command


def _random_bits(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Any bits but NaN and infinity, which are refused; half and single precision in turns."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for i, (name, shape) in enumerate(shapes.items()):
        if name.endswith('num_batches_tracked'):
            weights[name] = torch.tensor(12345)
            continue
        dtype, integer = [(torch.float16, torch.int16), (torch.float32, torch.int32)][i % 2]
        limits = torch.iinfo(integer)
        bits = torch.randint(limits.min, limits.max + 1, shape or (1,), generator=generator, dtype=integer)
        values = bits.reshape(shape).view(dtype)
        weights[name] = torch.where(values.isfinite(), values, torch.tensor(-0.0, dtype=dtype))
    return weights


def _assert_same_bits(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    assert list(weights) == list(others)
    for name, tensor in weights.items():
        other = others[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert tensor.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes(), name


RESNET = (512, 1024, 2048)
COUNTERS = {'backbone.body.stem.stem_1/norm.num_batches_tracked': ()}
WHOLE = {
    'star': ('star', released.lite_star()),
    'panoptic': ('star', released.star(released.resnet_star(50), RESNET) | released.semantic_head()),
    'paper': ('paper', released.with_prefix('module.', released.lite_paper() | COUNTERS)),
    'paper, MobileNetV2': ('paper', released.paper(released.mobilenetv2(), (32, 96, 320), lite=True, scoring=False)),
}
BACKBONES = {
    'VoVNet': released.with_prefix('module.', released.vovnet('19-slim') | {'classifier.weight': (10, 512)}),
    'MobileNetV2': released.mobilenetv2(),
}


@pytest.mark.parametrize('name', [*WHOLE, *BACKBONES])
def test_there_and_back(name: str, convert: Callable[..., Result], tmp_path: Path) -> None:
    recipe, shapes = WHOLE.get(name) or ('star', BACKBONES[name])
    weights = _random_bits(dict(reversed(shapes.items())))  # an order that the model doesn't have
    content = {'model': weights, 'optimizer': {'state': {}}, 'scheduler': {'last_epoch': 3}, 'iteration': 90000}
    torch.save(content, tmp_path / 'a.pth')
    there = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert (there.code, there.err) == (0, '')
    ours = torch.load(tmp_path / 'b.pth')
    assert f'config                 configs/{ours["meta"]["config"]}.py' in there.out
    assert re.search(r'left out +(module\.classifier\.weight, )?optimizer, scheduler, iteration\n', there.out)
    back = convert(tmp_path / 'b.pth', tmp_path / 'c.pth', '--to', recipe)
    assert back == (0, f'{tmp_path / "c.pth"} has the {recipe} layout\n', '')
    released_again = torch.load(tmp_path / 'c.pth')
    assert list(released_again) == ['model']
    expected = {key: tensor for key, tensor in weights.items() if 'classifier' not in key}
    _assert_same_bits(released_again['model'], expected)


def test_what_was_trained_here_goes_there_and_comes_back(
    tiny_run: Path, convert: Callable[..., Result], tmp_path: Path
) -> None:
    left_out = 'meta (iteration 2), message_hub, optimizer, param_schedulers, num_batches_tracked of norms'
    said = f'{tmp_path / "a.pth"} has the star layout; left out: {left_out}\n'
    assert convert(tiny_run / 'iter_2.pth', tmp_path / 'a.pth', '--to', 'star') == (0, said, '')
    there = torch.load(tmp_path / 'a.pth')['model']
    assert there.keys() == released.lite_star(5).keys() - released.PIXELS.keys()
    result = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert result.code == 0 and 'model.num_classes=5' in result.out
    trained, again = (torch.load(path)['state_dict'] for path in (tiny_run / 'iter_2.pth', tmp_path / 'b.pth'))
    counted = [name for name in trained if name.endswith('num_batches_tracked')]
    assert counted
    _assert_same_bits(again, {name: tensor for name, tensor in trained.items() if name not in counted})


def test_the_summary(convert: Callable[..., Result], tmp_path: Path) -> None:
    shapes = released.lite_star()
    torch.save({'model': released.empty(shapes), '__author__': 'me'}, tmp_path / 'a.pth')
    result = convert(tmp_path / 'a.pth', tmp_path / 'b.pth')
    config = 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
    model = MODELS.build(released._read(REPOSITORY / config).model)
    lines = result.out.splitlines()
    assert lines[:6] == [
        'layout                 star',
        f'config                 {config}',
        'tensors                165 of 165',
        f'parameters             {sum(p.numel() for p in model.parameters()):,}',
        'kept for the way back  pixel_mean, pixel_std',
        'left out               __author__',
    ]
    assert re.match(
        r' {6}6  backbone\.fpn_lateral\{i\+3\}\.\{\*\} +neck\.lateral_convs\.\{i\}\.conv\.\{\*\}$', lines[8]
    )
    assert sum(int(line.split()[0]) for line in lines[8:-3]) == 165
    assert lines[-2:] == [
        f'wrote {tmp_path / "b.pth"}, use it by',
        f'python tools/test.py {config} {tmp_path / "b.pth"}',
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.pth']
    assert init_detector(REPOSITORY / config, str(tmp_path / 'b.pth'), device='cpu').dataset_meta['classes'][2] == 'car'


def _save(path: Path, shapes: released.Shapes, entry: str) -> None:
    if path.suffix == '.pkl':
        arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
        path.write_bytes(pickle.dumps({entry: arrays, '__author__': 'me'} if entry else arrays, 2))
    else:
        weights = released.empty(shapes)
        torch.save({entry: weights} if entry else weights, path)


LAYOUTS = {  # the file's name, its entry, shapes, and a key
    'star': ('a.pth', 'model', released.lite_star(), 'proposal_generator.fcos_head.cls_logits.weight'),
    'panoptic': ('a.pth', 'model', WHOLE['panoptic'][1], 'sem_seg_head.predictor.bias'),
    'paper': ('a.pth', 'model', WHOLE['paper'][1], 'module.backbone.fpn.fpn_inner2.weight'),
    'VoVNet': ('a.pth', '', BACKBONES['VoVNet'], 'module.stem.stem_1/conv.weight'),
    'MobileNetV2': ('a.pth', '', BACKBONES['MobileNetV2'], 'features.17.conv.6.weight'),
    'Detectron2': ('a.pkl', 'model', released.resnet_star(50, statistics=False), 'stem.conv1.norm.weight'),
    'Caffe2': ('a.pkl', 'blobs', released.resnet_caffe2(50), 'res5_2_branch2c_bn_s'),
    'timm': ('pytorch_model.bin', '', released.timm_vovnet('39'), 'stem.0.conv.weight'),
    'timm, depthwise': ('pytorch_model.bin', '', released.timm_vovnet('19-dw'), 'stages.3.blocks.0.attn.fc.weight'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_and_its_faults(layout: str, convert: Callable[..., Result], tmp_path: Path) -> None:
    name, entry, shapes, key = LAYOUTS[layout]
    source, destination = tmp_path / name, tmp_path / 'out/b.pth'
    destination.parent.mkdir()
    _save(source, shapes, entry)
    assert convert(source, destination).code == 0
    destination.unlink()

    rest = {other: shape for other, shape in shapes.items() if other != key}
    renamed, reshaped = f'{key}_renamed', (3, *shapes[key])
    for wrong, phrase in [
        (rest, f'{key} is missing'),
        (rest | {renamed: shapes[key]}, f'{renamed} is unknown'),
        (rest | {key: reshaped}, f'{key} is {reshaped} and should be {shapes[key]}'),
    ]:
        _save(source, wrong, entry)
        result = convert(source, destination)
        assert (result.code, result.out) == (2, '')
        assert result.err.startswith(f"error: The checkpoint {source} can't be converted, ")
        assert f'  {phrase}' in result.err.splitlines()
        assert list(destination.parent.iterdir()) == []


def test_usage_of_a_backbone(convert: Callable[..., Result], tmp_path: Path) -> None:
    _save(tmp_path / 'a.pth', released.vovnet('39'), '')
    words = shlex.split(convert(tmp_path / 'a.pth', tmp_path / 'my own.pth').out.splitlines()[-1])
    assert words == [
        'python',
        'tools/train.py',
        'configs/centermask-star_v2-39_fpn_3x_coco.py',
        '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={tmp_path / "my own.pth"}',
    ]


@pytest.mark.parametrize('form', ['original', 'converted'])
@pytest.mark.parametrize('layout', ['VoVNet', 'MobileNetV2', 'Detectron2', 'Caffe2', 'timm', 'timm, depthwise'])
def test_backbones_start_from_it(layout: str, form: str, convert: Callable[..., Result], tmp_path: Path) -> None:
    """``init_cfg=dict(type='StrictPretrained')`` takes the original and what it is converted to, and all of it."""
    name, entry, shapes, _ = LAYOUTS[layout]
    source, destination = tmp_path / name, tmp_path / 'b.pth'
    weights = released.filled(shapes)
    if source.suffix == '.pkl':
        source.write_bytes(pickle.dumps({entry: {key: tensor.numpy() for key, tensor in weights.items()}}, 2))
    else:
        torch.save({entry: weights} if entry else weights, source)
    assert convert(source, destination).code == 0
    converted = torch.load(destination)
    config = released._read(REPOSITORY / f'configs/{converted["meta"]["config"]}.py').model.backbone
    checkpoint = str(source if form == 'original' else destination)
    backbone = MODELS.build({**config, 'init_cfg': dict(type='StrictPretrained', checkpoint=checkpoint)})
    backbone.init_weights()
    for key, tensor in backbone.state_dict().items():
        if not key.endswith('num_batches_tracked'):
            assert torch.equal(tensor, converted['state_dict'][key]), key


def test_a_backbone_starts_from_a_whole_model(tmp_path: Path) -> None:
    weights = released.filled(released.lite_star())
    torch.save({'model': weights}, tmp_path / 'a.pth')
    init_cfg = dict(type='StrictPretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='backbone.')
    backbone = MODELS.build(dict(type='VoVNet', arch='19-slim', init_cfg=init_cfg))
    backbone.init_weights()
    theirs = 'backbone.bottom_up.stage5.OSA5_1.concat.OSA5_1_concat/norm.running_var'
    assert torch.equal(backbone.state_dict()['stages.3.blocks.0.aggregate.bn.running_var'], weights[theirs])


def _star_and_paper() -> list:
    return [('star', released.lite_star()), ('paper', released.lite_paper())]


@pytest.mark.parametrize(('recipe', 'shapes'), _star_and_paper())
def test_keep_classes(recipe: str, shapes: released.Shapes, convert: Callable[..., Result], tmp_path: Path) -> None:
    """From the original or from what it was converted to; the result goes back to its layout."""
    weights = released.filled(shapes, torch.float16)
    torch.save({'model': weights}, tmp_path / 'a.pth')
    assert convert(tmp_path / 'a.pth', tmp_path / 'b.pth').code == 0
    names = ['traffic light', 'person']
    for source, destination in (('a', 'few'), ('b', 'few_too')):
        result = convert(tmp_path / f'{source}.pth', tmp_path / f'{destination}.pth', '--keep-classes', *names)
        paths = f'{tmp_path / destination}.py {tmp_path / destination}.pth'
        assert (result.code, result.out.splitlines()[-1]) == (0, f'python tools/test.py {paths}')
    few, few_too = (torch.load(tmp_path / f'{name}.pth') for name in ('few', 'few_too'))
    assert few['meta'] == few_too['meta'] and few['meta']['dataset_meta']['classes'] == names
    _assert_same_bits(few['state_dict'], few_too['state_dict'])

    config = released.Config.fromfile(tmp_path / 'few.py')
    assert config.test_dataloader.dataset.metainfo.classes == tuple(names)
    assert config.train_dataloader.dataset.metainfo.classes == tuple(names)
    model = MODELS.build({**config.model, 'backbone': {**config.model.backbone, 'init_cfg': None}})
    model.load_state_dict(few['state_dict'], strict=False)
    assert model.bbox_head.conv_cls.bias.shape == (2,)

    assert convert(tmp_path / 'few_too.pth', tmp_path / 'c.pth', '--to', recipe).code == 0
    back = torch.load(tmp_path / 'c.pth')['model']
    assert list(back) == list(shapes)  # with how images are normalised
    masks = next(name for name in shapes if re.search(r'mask\S*\.(predictor|mask_fcn_logits)\.weight', name))
    channels = [0, 10, 1] if recipe == 'paper' else [9, 0]  # of the first release's masks the first is background's
    assert torch.equal(back[masks], weights[masks][channels])


def test_keep_classes_writes_over_nothing(convert: Callable[..., Result], tmp_path: Path) -> None:
    _save(tmp_path / 'a.pth', released.lite_star(), 'model')
    (tmp_path / 'b.py').write_text('mine = 1\n')
    result = convert(tmp_path / 'a.pth', tmp_path / 'b.pth', '--keep-classes', 'person')
    assert (result.code, result.err) == (
        2,
        f'error: --keep-classes also writes {tmp_path / "b.py"}, which exists: name another DST.\n',
    )
    assert (tmp_path / 'b.py').read_text() == 'mine = 1\n' and not (tmp_path / 'b.pth').exists()
    for _ in range(2):  # its own, of the same classes, it may
        assert convert(tmp_path / 'a.pth', tmp_path / 'c.pth', '--keep-classes', 'person').code == 0
    result = convert(tmp_path / 'a.pth', tmp_path / 'd.pth', '--keep-classes', 'person', 'persn')
    assert (result.code, result.out) == (2, '') and "has no class 'persn': did you mean person?" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.py', 'c.pth', 'c.py']


def test_refusals(convert: Callable[..., Result], tiny_run: Path, tmp_path: Path) -> None:
    _save(tmp_path / 'a.pth', released.lite_star(5), 'model')
    _save(tmp_path / 'timm.pth', released.timm_vovnet('39'), '')
    torch.save({'model': {'w': torch.ones(1)}}, tmp_path / 'other.pth')
    assert convert(tmp_path / 'a.pth', tmp_path / 'b.pth').code == 0
    assert convert(tmp_path / 'timm.pth', tmp_path / 'backbone.pth').code == 0
    before = sorted(tmp_path.iterdir())
    trained = tiny_run / 'iter_2.pth'
    for words, sentence in [
        (['missing.pth', 'x.pth'], "The checkpoint missing.pth doesn't exist: give the path of a checkpoint."),
        ([tmp_path / 'a.pth', tmp_path / 'x.pkl'], 'end its name in .pth.'),
        ([tmp_path / 'a.pth', tmp_path / 'a.pth'], 'is SRC: give another name, the source stays as it is.'),
        ([tmp_path / 'other.pth', tmp_path / 'x.pth'], 'has no layout that is known here'),
        ([trained, tmp_path / 'x.pth'], 'has the layout of MMDetection already: use it as it is'),
        ([trained, tmp_path / 'x.pth', '--to', 'paper'], 'holds a model of the other recipe: give --to star.'),
        ([tmp_path / 'b.pth', tmp_path / 'x.pth', '--to', 'paper'], 'other recipe: give --to star.'),
        ([tmp_path / 'a.pth', tmp_path / 'x.pth', '--to', 'star'], 'leave out --to to convert it.'),
        ([tmp_path / 'backbone.pth', tmp_path / 'x.pth', '--to', 'star'], 'holds no whole model'),
        ([tmp_path / 'a.pth', tmp_path / 'x.pth', '--keep-classes', 'car'], "doesn't say its classes"),
        ([trained, tmp_path / 'x.pth', '--keep-classes', 'circle'], "doesn't say its classes and its config"),
    ]:
        result = convert(*words)
        assert result.code == 2 and sentence in result.err, (words, result)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_same_detections_of_fewer_classes(
    shared: Path, convert: Callable[..., Result], tools: Callable, tmp_path: Path
) -> None:
    """The trained checkpoint finds with the classes that were kept what it finds of these with all."""
    names = ['traffic light', 'bottle', 'person']
    original = shared / 'parity/star/lite_V_19_slim_coco6.pth'
    result = convert(original, tmp_path / 'few.pth', '--keep-classes', *names)
    *_, config, checkpoint = result.out.splitlines()[-1].split()
    photographs = shared / 'data/coco6'
    data = 'test_dataloader.dataset'
    options = [
        f'{data}.data_root={photographs}',
        f'{data}.ann_file=instances.json',
        f'{data}.data_prefix.img=images',
        f'{data}.pipeline.1.scale=(480,288)',
        f'test_evaluator.ann_file={photographs}/instances.json',
    ]
    found = []
    whole = 'configs/centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
    for i, words in enumerate([[whole, str(original)], [config, checkpoint]]):
        out = tmp_path / f'{i}.pkl'
        tools('test')([*words, '--work-dir', str(tmp_path / 'run'), '--out', str(out), '--cfg-options', *options])
        found.append({sample['img_id']: sample['pred_instances'] for sample in pickle.loads(out.read_bytes())})
    compared = 0
    for image, kept in found[1].items():
        whole = found[0][image]
        for label, in_coco in enumerate([9, 39, 0]):  # what the best 50 of all classes leave room for
            expected, candidates = torch.where(whole['labels'] == in_coco)[0], torch.where(kept['labels'] == label)[0]
            for i in expected:
                distances = (kept['bboxes'][candidates] - whole['bboxes'][i]).abs().amax(1)
                match = candidates[distances.argmin()]
                assert distances.min() < 1e-3
                assert kept['scores'][match].item() == pytest.approx(whole['scores'][i].item(), rel=1e-5)
                assert kept['mask_scores'][match].item() == pytest.approx(whole['mask_scores'][i].item(), rel=1e-5)
                assert kept['masks'][match] == whole['masks'][i]
            assert (kept['scores'][candidates] > 0.3).sum() == (whole['scores'][expected] > 0.3).sum()
            compared += len(expected)
    assert compared >= 17  # those that are listed beside the checkpoint
