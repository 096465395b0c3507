"""Train a detector: python tools/train.py CONFIG [--data DIR] [--resume] [--amp] [--cfg-options KEY=VALUE ...]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from centermask.datasets.dataset_check import check_training_data
from centermask.engine.cli import add_run_arguments, command_line, load_run_config, non_empty, require_file, run
from centermask.engine.configs import build_runner
from centermask.engine.distributed import is_first_process
from centermask.engine.train_options import add_train_arguments, apply_train_options
from centermask.report.after_training import report_training
from centermask.utils.errors import InputError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('config', help='config file, or the name of a model')
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate by the batch size over the config's"
    )
    parser.add_argument(
        '--resume',
        type=non_empty,
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a name, from the newest intact one of the work folder',
    )
    add_train_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_run_config(args, training=True)
    if args.amp:
        cfg.optim_wrapper.type = 'NonFiniteSafeAmpOptimWrapper'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError(
                f'--auto-scale-lr: the config {args.config} has no auto_scale_lr.base_batch_size to scale by.'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        require_file(cfg.load_from, 'checkpoint')
    lines = apply_train_options(cfg, args)
    if is_first_process():
        for line in filter(None, [*lines, check_training_data(cfg, with_tables=bool(args.data))]):
            print(line, flush=True)
    runner = build_runner(cfg)
    runner.train()
    if args.data:
        report_training(runner, cfg, command_line())


if __name__ == '__main__':
    sys.exit(run(main))
