"""What trainings on own data begin with, and options of ``tools/train.py``: early stopping, freezing, averaging."""

from __future__ import annotations

import argparse
from typing import Any

from mmengine.config import Config, ConfigDict

from centermask.engine.cli import not_negative, positive
from centermask.engine.loggers import LOGGERS, add_loggers
from centermask.engine.unfinished import resume_unfinished
from centermask.utils.errors import InputError

MIN_DELTA = 0.0005  # the figures have three decimals, so any higher one counts
EMA_WINDOWS = 10  # in a training; averages are over about one of them
STAGES = {'MobileNetV2Features': 7, 'ResNet': 4, 'ResNeXt': 4, 'ShapeMaskResNet': 4, 'VoVNet': 4}  # to freeze


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`apply_train_options` takes."""
    parser.add_argument(
        '--logger', action='append', choices=LOGGERS, default=[], help='record the training there too; may be repeated'
    )
    parser.add_argument(
        '--patience',
        type=positive,
        metavar='N',
        help='end the training after N validations without a better mask AP',
    )
    parser.add_argument(
        '--freeze',
        type=not_negative,
        metavar='N',
        help="keep the backbone's stem and first N stages as they are",
    )
    parser.add_argument(
        '--ema',
        action='store_true',
        help='validate and save an average of the weights over the last tenth of the iterations',
    )


def apply_train_options(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Change a config by the options of a training, and by what one on own data begins with; return lines about it.

    Args:
        cfg: the config, which resumes already where the command line says so.
        args: the options of :func:`add_train_arguments`, ``data`` and ``resume``.

    Raises:
        InputError: the config can't do what an option asks for.
    """
    lines = add_loggers(cfg, args.logger)
    if args.data:
        lines.append(save_best(cfg))
    if args.ema:
        lines.append(average_weights(cfg))
    if args.patience:
        lines.append(stop_early(cfg, args.patience))
    if args.freeze is not None:
        lines.append(freeze(cfg, args.freeze))
    if args.data and not args.resume:
        lines.append(resume_unfinished(cfg))
    return [line for line in lines if line]


def monitored(cfg: Config) -> str | None:
    """Return the figure by which the config's validations are compared: mask AP, box AP where no masks are tested."""
    evaluators = cfg.get('val_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metrics = evaluator.get('metric') or []
        for name in ('segm', 'bbox'):
            if name in ([metrics] if isinstance(metrics, str) else metrics):
                return f'coco/{name}_mAP'
    return None


def save_best(cfg: Config) -> str:
    """Keep the checkpoint of the best validation, unless the config says which; return a line about it."""
    hook = cfg.get('default_hooks', {}).get('checkpoint')
    figure = monitored(cfg)
    if hook is None or figure is None:
        return ''
    if not hook.get('save_best'):
        hook.update(save_best=figure, rule='greater')
    return f'Best checkpoint: kept by {hook.save_best}, and tested at the end.'


def stop_early(cfg: Config, patience: int) -> str:
    """End the training after so many validations without a better figure; return a line about it.

    Raises:
        InputError: the config validates neither masks nor boxes.
    """
    figure = monitored(cfg)
    if figure is None:
        raise InputError(f'--patience: the config {cfg.filename} has no val_evaluator that tests masks or boxes.')
    options = dict(rule='greater', min_delta=MIN_DELTA, patience=patience)
    kind = 'ResumableEarlyStoppingHook'  # replaces that of a config which a training saved
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] != kind]
    _add_hook(cfg, type=kind, monitor=figure, **options)
    return f'Early stopping: after {patience} validations without a better {figure}.'


def freeze(cfg: Config, stages: int) -> str:
    """Freeze the backbone's stem and first stages; return a line about it.

    Raises:
        InputError: they start from random weights, or there are fewer.
    """
    backbone = cfg.model.backbone
    most = STAGES.get(backbone.type, stages)
    if stages > most:
        raise InputError(f'--freeze {stages}: the backbone of {cfg.filename} has {most} stages: give at most {most}.')
    if not (cfg.get('load_from') or cfg.get('resume') or backbone.get('init_cfg')):
        raise InputError(
            f'--freeze: the backbone of {cfg.filename} starts from random weights, which would stay: '
            'start from a trained model by --cfg-options load_from=FILE.'
        )
    backbone.frozen_stages = stages
    return f'Frozen: the stem of the backbone and {stages} of its stages.'


def average_weights(cfg: Config) -> str:
    """Validate and save an exponential moving average of the weights (EMA); return a line about it.

    It begins as the plain mean, and later spans a tenth of the training. An EMA of the config's own stays.

    Raises:
        InputError: the config counts in epochs.
    """
    if any(hook['type'] == 'EMAHook' for hook in cfg.get('custom_hooks') or []):
        return 'EMA: as the config says.'
    if 'max_iters' not in cfg.train_cfg:
        raise InputError(f'--ema: the config {cfg.filename} counts in epochs: give its custom_hooks an EMAHook.')
    iterations = cfg.train_cfg.max_iters
    momentum = min(EMA_WINDOWS / iterations, 0.5)
    _add_hook(cfg, type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=momentum, gamma=1, update_buffers=True)
    return f'EMA: weights averaged over about {max(2, iterations // EMA_WINDOWS)} iterations are validated and saved.'


def _add_hook(cfg: Config, **hook: Any) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(hook)]
