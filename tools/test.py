"""Test a detector: python tools/test.py CONFIG [CHECKPOINT] [--data DIR] [--show-dir DIR] [--tta] [--amp]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.fileio import dump

from centermask.engine.amp import use_half_precision
from centermask.engine.cli import add_run_arguments, load_run_config, require_file, require_writable, run
from centermask.engine.configs import build_runner
from centermask.engine.model_names import released_weights
from centermask.export.exported_detector import require_no_model_options, use_exported_file
from centermask.export.runtime import is_exported
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('config', help='config file, or the name of a model')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="checkpoint file, or a file that tools/export.py made of it (default: the model's released weights)",
    )
    parser.add_argument('--out', help='write all predictions to this file (.pkl or .pickle)')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='draw predictions into this folder, under WORK_DIR/TIMESTAMP')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows each (default 2)')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, by the config's tta_model")
    parser.add_argument(
        '--amp', action='store_true', help='compute in half precision: bfloat16 on a CPU, float16 on a GPU'
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


class WriteResults(DumpDetResults):
    """MMDetection's metric that writes all predictions, with an atomic write."""

    default_prefix = 'predictions'  # without one MMEngine warns

    def compute_metrics(self, results: list) -> dict[str, Any]:
        atomic_write(Path(self.out_file_path), partial(dump, results, file_format='pkl'))
        print(f'all predictions are in {self.out_file_path}')
        return {}


def use_tta(cfg: Config) -> None:
    """Wrap the config's model in its test-time augmentation, and use its pipeline for the test data."""
    for key in ('tta_model', 'tta_pipeline'):
        if not cfg.get(key):
            raise InputError(f'--tta: the config {cfg.filename} has no {key}.')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_run_config(args)
    args.checkpoint = args.checkpoint or released_weights(args.config)
    require_file(args.checkpoint, 'checkpoint')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        use_half_precision(cfg, get_device(), is_exported(args.checkpoint))
    if is_exported(args.checkpoint):
        if args.tta:
            raise InputError('--tta: an exported file looks at an image as it is; test the checkpoint.')
        require_no_model_options(args.cfg_options)
        use_exported_file(cfg, args.checkpoint)
    if args.show or args.show_dir:
        if not cfg.default_hooks.get('visualization'):
            raise InputError(f'--show: the config {args.config} has no default_hooks.visualization.')
        if args.show_dir and os.path.isabs(args.show_dir):
            require_writable(args.show_dir, '--show-dir')
        trigger_visualization_hook(cfg, args)
    if args.tta:
        use_tta(cfg)
    if args.out:
        out = Path(args.out)
        if out.suffix not in ('.pkl', '.pickle'):
            raise InputError(f'--out {out}: the file is a pickle, so end its name in .pkl or .pickle.')
        require_writable(out.parent, '--out')

    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(WriteResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    sys.exit(run(main))
