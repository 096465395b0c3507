"""Convert a released checkpoint to MMDetection's layout: python tools/convert_checkpoint.py SRC DST.pth"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from centermask.checkpoints.conversion import convert
from centermask.checkpoints.reading import read
from centermask.engine.cli import require_writable, run
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError

TOOLS = Path(__file__).resolve().parent


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument(
        'source',
        metavar='SRC',
        help="file or URL: CenterMask, CenterMask2, an ImageNet VoVNet (or timm's), MobileNetV2 or ResNet",
    )
    parser.add_argument('destination', metavar='DST', type=Path, help='the file to write, .pth')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.destination.suffix != '.pth' or args.destination.is_dir():
        raise InputError(f'DST {args.destination} is a checkpoint to write: end its name in .pth.')
    if args.destination.resolve() == Path(args.source).resolve():
        raise InputError(f'DST {args.destination} is SRC: give another name, the source stays as it is.')
    require_writable(args.destination.parent, 'DST')
    contents = read(args.source)
    conversion = convert(contents, args.source, TOOLS.parent / 'configs')
    atomic_write(args.destination, lambda path: torch.save(conversion.checkpoint, path))
    config, weights = os.path.relpath(conversion.config), conversion.checkpoint['state_dict']
    print(f'layout     {conversion.checkpoint["meta"]["source"]}')
    print(f'config     {config}')
    print(f'converted  {len(weights)} tensors')
    print(f'not used   {", ".join(conversion.unused) or "nothing"}')
    print(f'wrote {args.destination}, use it by')
    if any(name.startswith('bbox_head.') for name in weights):
        command = ['test.py', config, args.destination]
        if 'dataset_meta' not in conversion.checkpoint['meta']:
            classes = len(weights['bbox_head.conv_cls.bias'])
            names = 'test_dataloader.dataset.metainfo.classes=NAMES'
            command += ['--cfg-options', f'model.num_classes={classes}', names]
    else:
        command = ['train.py', config, '--cfg-options', f'model.backbone.init_cfg.checkpoint={args.destination}']
    print(shlex.join(['python', os.path.relpath(TOOLS / command[0]), *map(str, command[1:])]))


if __name__ == '__main__':
    sys.exit(run(main))
