"""Convert a checkpoint: python tools/convert_checkpoint.py SRC DST.pth [--keep-classes NAME ...] [--to RECIPE]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from centermask.checkpoints.conversion import (
    config_of_classes,
    convert,
    is_ours,
    keep_classes,
    lost_on_the_way_back,
    restore,
    summary,
    usage,
)
from centermask.checkpoints.reading import read
from centermask.engine.cli import require_writable, run
from centermask.utils.atomic_io import atomic_write, atomic_write_text
from centermask.utils.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument(
        'source',
        metavar='SRC',
        help="file or URL: CenterMask, CenterMask2, an ImageNet VoVNet (or timm's), MobileNetV2 or ResNet",
    )
    parser.add_argument('destination', metavar='DST', type=Path, help='the file to write, .pth')
    parser.add_argument(
        '--to',
        choices=('star', 'paper'),
        help='the way back: from a checkpoint of this project to one of CenterMask2 (star) or CenterMask (paper)',
    )
    parser.add_argument(
        '--keep-classes',
        metavar='NAME',
        nargs='+',
        help='keep only these classes, in this order: a COCO model becomes a person and car model without training',
    )
    args = parser.parse_args(argv)
    if args.to and args.keep_classes:
        parser.error('--keep-classes and --to are two steps: convert with one, then with the other')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.destination.suffix != '.pth' or args.destination.is_dir():
        raise InputError(f'DST {args.destination} is a checkpoint to write: end its name in .pth.')
    if args.destination.resolve() == Path(args.source).resolve():
        raise InputError(f'DST {args.destination} is SRC: give another name, the source stays as it is.')
    require_writable(args.destination.parent, 'DST')
    contents = read(args.source)
    if args.to:
        released = restore(contents, args.source, args.to)
        atomic_write(args.destination, lambda path: torch.save(released, path))
        lost = ', '.join(lost_on_the_way_back(contents))
        print(f'{args.destination} has the {args.to} layout' + (f'; left out: {lost}' if lost else ''))
        return

    what_became = ''
    if args.keep_classes and is_ours(contents):
        checkpoint = {**contents.others, 'state_dict': contents.weights}
    else:
        conversion = convert(contents, args.source, CONFIGS)
        what_became = f'{summary(conversion)}\n\n'
        checkpoint = conversion.checkpoint
    if args.keep_classes:
        checkpoint = keep_classes(checkpoint, args.source, args.keep_classes)
        name = str(checkpoint['meta']['config'])
        if name not in {path.stem for path in CONFIGS.rglob('*.py')}:  # nor another's, as a config is a program
            raise InputError(f'--keep-classes: {args.source} is of a config {name!r}, which configs/ has not.')
        config = args.destination.with_suffix('.py')
        _write_config(config, next(CONFIGS.rglob(f'{name}.py')), args.keep_classes)
    else:
        config = _from_here(CONFIGS / f'{checkpoint["meta"]["config"]}.py')
    atomic_write(args.destination, lambda path: torch.save(checkpoint, path))
    command = usage(checkpoint, config, args.destination, _from_here(Path(__file__).parent))
    print(f'{what_became}wrote {args.destination}, use it by\n{command}')


def _from_here(path: Path) -> Path:
    return Path(os.path.relpath(path))


def _write_config(path: Path, base: Path, classes: Sequence[str]) -> None:
    """Write the config of a checkpoint with fewer classes, but over nothing else."""
    text = config_of_classes(os.path.relpath(base, path.parent), classes)
    if path.exists() and path.read_text(encoding='utf-8') != text:
        raise InputError(f'--keep-classes also writes {path}, which exists: name another DST.')
    atomic_write_text(path, text)


if __name__ == '__main__':
    sys.exit(run(main))
