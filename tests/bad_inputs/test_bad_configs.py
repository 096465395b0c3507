"""Configs: one that can't be used ends in a sentence. (A config is a program: run those alone that you trust.)"""

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from centermask.engine import cli as launch
from centermask.engine import configs, runner


def _checkpoint(argument: str) -> str:
    return f"default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', {argument}))\n"


CASES: dict[str, tuple[Callable[[str], str], str]] = {  # the file by the proper one, words of the sentence
    'not Python': (lambda proper: proper + 'model = dict(', 'SyntaxError'),
    'prose': (lambda _: 'Dear reader, this is no config.', 'SyntaxError'),
    'binary': (lambda proper: proper + '\0', "can't be read"),
    'leaves the program': (lambda proper: proper + "exit('bye')\n", 'SystemExit'),
    'divides by zero': (lambda proper: proper + 'a = 1 / 0\n', 'ZeroDivisionError'),
    'inherits itself': (lambda proper: "_base_ = './config.py'\n" + proper, 'inherits itself'),
    'inherits what is not there': (lambda proper: "_base_ = './no.py'\n" + proper, './no.py'),
    'imports what is not there': (lambda proper: proper.replace("['centermask']", "['no_such']"), 'no_such'),
    'empty': (lambda _: '', 'model'),
    'no model': (lambda proper: proper.replace("model = dict(type='OneWeight')", ''), 'model'),
    'model of a wrong type': (lambda proper: proper.replace("dict(type='OneWeight')", '7'), 'model'),
    'unknown model': (lambda proper: proper.replace('OneWeight', 'TwoWeights'), 'TwoWeights is not in the'),
    'unknown data set': (lambda proper: proper.replace("'CenterMaskCocoDataset'", "'Cocoa'"), 'Cocoa is not in the'),
    'unknown transform': (lambda proper: proper.replace("'RoundResize'", "'Resise'"), 'Resise is not in the'),
    'unknown sampler': (lambda proper: proper.replace("'InfiniteSampler'", "'Endless'"), 'Endless is not in the'),
    'unknown optimiser': (
        lambda proper: proper.replace("'SGD'", "'Adaam'"),
        "optim_wrapper.optimizer.type can't be used: Adaam is not in the optimizer registry; did you mean Adam?",
    ),
    'unknown optimiser wrapper': (lambda proper: proper.replace("'OptimWrapper'", "'W'"), 'optim_wrapper.type can'),
    'unknown loop': (lambda proper: proper.replace("'IterBasedTrainLoop'", "'Loop'"), 'Loop is not in the'),
    'unknown hook': (
        lambda proper: proper + "custom_hooks = [dict(type='Crochet')]\n",
        "custom_hooks.0.type can't be used: Crochet is not in the hook registry: correct it, or import its module in",
    ),
    'unknown default hook': (
        lambda proper: proper + "default_hooks = dict(timer=dict(type='Crochet'))\n",
        "default_hooks.timer.type can't be used: Crochet is not in the hook registry",
    ),
    'unknown schedule': (
        lambda proper: proper + "param_scheduler = [dict(type='LinearRL')]\n",
        "param_scheduler.0.type can't be used: LinearRL is not in the parameter scheduler registry; did you mean ",
    ),
    'unknown argument': (lambda proper: proper.replace('data_root=', 'root='), 'root'),
    'negative batch': (lambda proper: proper.replace('batch_size=1', 'batch_size=-1'), 'batch_size'),
    'negative workers': (lambda proper: proper.replace('num_workers=0', 'num_workers=-1'), 'num_workers'),
    'negative learning rate': (lambda proper: proper.replace('lr=0.1', 'lr=-1'), 'Invalid learning rate: -1'),
    'negative max_pixels': (
        lambda proper: proper.replace('data_root=', 'max_pixels=-1, data_root='),
        'max_pixels is a',
    ),
    'no iterations': (lambda proper: proper.replace('max_iters=1', 'max_iters=0'), "train_cfg's max_iters is a whole"),
    'no interval': (lambda proper: proper.replace('max_iters=1', 'max_iters=1, val_interval=0'), 'val_interval is a'),
    'loader of a wrong type': (lambda proper: proper + 'train_dataloader = 7\n', 'train_dataloader is a dict, not 7'),
    'hooks of a wrong type': (lambda proper: proper + 'default_hooks = 7\n', 'default_hooks is a dict, not 7'),
    'scale without pixels': (
        lambda proper: proper.replace('(60, 40)', '(60, 0)'),
        "RoundResize's scale is two lengths",
    ),
    'images decoded by nobody': (
        lambda proper: proper.replace("'LoadImageFromFile'", "'LoadImageFromFile', imdecode_backend='foo'"),
        'is wrong, LoadImageFromFile fails at the first image with ValueError: backend: foo is not supported',
    ),
    'images of no colour': (
        lambda proper: proper.replace("'LoadImageFromFile'", "'LoadImageFromFile', color_type='foo'"),
        "is wrong, LoadImageFromFile fails at the first image with KeyError: 'foo'",
    ),
    'nothing packed': (
        lambda proper: proper.replace("dict(type='PackDetInputs'),", ''),
        'gives no inputs and data_samples for the model: end it with PackDetInputs',
    ),
    'classes as text': (lambda proper: proper.replace("('thing',)", "'thing'"), "are the text 'thing'"),
    'interval as text': (
        lambda proper: proper + _checkpoint("interval='x'"),
        "checkpoint.interval can't be 'x': it is a w",
    ),
    'interval of halves': (lambda proper: proper + _checkpoint('interval=1.5'), "interval can't be 1.5: it is a whole"),
    'flag as text': (
        lambda proper: proper + _checkpoint("by_epoch='no'"),
        "by_epoch can't be 'no': it is True or False",
    ),
    'folder as number': (lambda proper: proper + _checkpoint('out_dir=5'), "out_dir can't be 5: it is text or None"),
    'checkpoints of one name': (
        lambda proper: proper + _checkpoint("filename_tmpl='latest.pth'"),
        "filename_tmpl is a name with one {} for the number of iterations, not 'latest.pth'",
    ),
    'misspelt argument of a hook': (lambda proper: proper + _checkpoint('interwal=1'), 'has no argument interwal'),
    'misspelt argument of an average': (
        lambda proper: proper + "custom_hooks = [dict(type='EMAHook', momentumm=0.1)]\n",
        'The hooks of',
    ),
    'hooks that are no list': (lambda proper: proper + 'custom_hooks = 5\n', "custom_hooks can't be 5: it is a list"),
    'window as text': (
        lambda proper: proper + "log_processor = dict(window_size='x')\n",
        "log_processor.window_size can't be 'x'",
    ),
    'batches dropped by text': (
        lambda proper: proper.replace('batch_size=1', "batch_size=1, drop_last='no'"),
        "train_dataloader.drop_last can't be 'no': it is True or False",
    ),
    'no sampler': (lambda proper: proper.replace("dict(type='InfiniteSampler')", 'None'), 'a sampler that has a seed'),
    'learning rates': (
        lambda proper: proper.replace('lr=0.1', 'lr=[1, 2]'),
        "optimizer.lr can't be [1, 2]: it is a num",
    ),
    'half of the betas': (
        lambda proper: proper.replace("'SGD', lr=0.1", "'Adam', betas=[0.9]"),
        'optim_wrapper of',
    ),
    'gradients clipped at text': (
        lambda proper: proper.replace("type='OptimWrapper'", "type='OptimWrapper', clip_grad=dict(max_norm='x')"),
        "optim_wrapper.clip_grad.max_norm can't be 'x': it is a number",
    ),
    'gradients turned round': (
        lambda proper: proper.replace("type='OptimWrapper'", "type='OptimWrapper', clip_grad=dict(max_norm=-1)"),
        "optim_wrapper.clip_grad.max_norm can't be -1: it is above 0",
    ),
    'warm-up from nothing': (
        lambda proper: proper + "param_scheduler = [dict(type='LinearLR', start_factor=0, by_epoch=False, end=9)]\n",
        "param_scheduler.0.start_factor can't be 0: it is above 0",
    ),
    'milestones as text': (
        lambda proper: proper + "param_scheduler = [dict(type='MultiStepLR', milestones=[1, 'x'], by_epoch=False)]\n",
        "param_scheduler.0.milestones can't be [1, 'x']: it is a list, each entry a whole number",
    ),
    'rate scaled by nothing': (
        lambda proper: proper + 'auto_scale_lr = dict(enable=True)\n',
        'The auto_scale_lr of',
    ),
    'rate scaled by batches of no image': (
        lambda proper: proper + 'auto_scale_lr = dict(enable=True, base_batch_size=0)\n',
        "auto_scale_lr.base_batch_size can't be 0: it is above 0",
    ),
    'rate raised within no step': (
        lambda proper: (
            proper
            + "param_scheduler = [dict(type='OneCycleLR', eta_max=1, total_steps=10, pct_start=0.1, by_epoch=False)]\n"
        ),
        'The param_scheduler of',
    ),
    'rate lowered at every zeroth step': (
        lambda proper: proper + "param_scheduler = [dict(type='StepLR', step_size=0, by_epoch=False)]\n",
        "param_scheduler.0.step_size can't be 0: it is above 0",
    ),
    'pyramid without channels': (
        lambda proper: proper + "model = dict(neck=dict(type='FPN', in_channels=[8], out_channels=0, num_outs=1))\n",
        "model.neck.out_channels can't be 0: it is above 0",
    ),
    'checkpoints at no iteration': (
        lambda proper: proper + _checkpoint('interval=0'),
        "checkpoint.interval can't be 0: it is above 0, or -1 for a checkpoint at the end only",
    ),
    'no RoI to learn from': (
        lambda proper: (
            proper + "model = dict(train_cfg=dict(sampler=dict(type='RandomSampler', num=0, pos_fraction=1)))\n"
        ),
        "model.train_cfg.sampler.num can't be 0: it is above 0",
    ),
    'losses averaged over nothing': (
        lambda proper: proper + 'log_processor = dict(window_size=0)\n',
        "log_processor.window_size can't be 0: it is above 0",
    ),
    'cuDNN as text': (
        lambda proper: proper + "env_cfg = dict(cudnn_benchmark='x')\n",
        "env_cfg.cudnn_benchmark can't be 'x': it is True or False",
    ),
    'filter as text': (
        lambda proper: proper.replace('data_root=', "filter_cfg=dict(filter_empty_gt='x'), data_root="),
        "train_dataloader.dataset.filter_cfg.filter_empty_gt can't be 'x': it is True or False",
    ),
    'keys as text': (
        lambda proper: proper.replace("'PackDetInputs'", "'PackDetInputs', meta_keys='x'"),
        "train_dataloader.dataset.pipeline.3.meta_keys can't be 'x': it is a list",
    ),
    'unused parameters as text': (
        lambda proper: proper + "find_unused_parameters = 'x'\n",
        "find_unused_parameters can't be 'x': it is True or False",
    ),
    'another BN of several processes': (
        lambda proper: proper + "sync_bn = 'x'\n",
        "sync_bn can't be 'x': it is 'torch' or 'mmcv' or None",
    ),
    'images that are not there': (
        lambda proper: proper.replace('data_root=', 'indices=[99999], data_root='),
        'annotations.json are of images 0 to 0, not 99999',
    ),
    'threshold as text': (
        lambda proper: proper.replace(
            "type='OneWeight'",
            "type='OneWeight', assigner=dict(type='MaxIoUAssigner', pos_iou_thr='x', neg_iou_thr=0.5)",
        ),
        "model.assigner.pos_iou_thr can't be 'x': it is a number",
    ),
    'loop without data': (lambda proper: proper + 'train_dataloader = None\n', 'train_dataloader'),
}


def _write(case: str, config: Path) -> str:
    make, words = CASES[case]
    config.write_text(make(config.read_text()))
    return words


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, config: Path, outcome: Callable, tmp_path: Path) -> None:
    words = _write(case, config)
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(config), words)


@pytest.mark.parametrize('case', CASES)
def test_without_the_guard_it_is_a_traceback_or_a_wrong_training(
    case: str, config: Path, outcome: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(case, config)
    for module in (configs, runner):
        monkeypatch.setattr(module, 'config_errors', lambda source, part='': nullcontext())
    for module in (launch, runner):
        monkeypatch.setattr(module, 'check_config', lambda cfg: None)
    monkeypatch.setattr(runner, 'check_pipeline', lambda *_: None)
    monkeypatch.setattr(configs, '_require_end', lambda path: None)
    monkeypatch.setattr(configs, 'InputError', RuntimeError)  # what load_config raises is no sentence for the user then
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 250)  # what inherits itself does so for seconds otherwise
    try:
        ended = outcome('train', config, '--work-dir', tmp_path / 'run')
    except SystemExit:
        return
    finally:
        sys.setrecursionlimit(limit)
    assert ended.code in (-1, 0)
