"""Make the file of ShapeMask's priors from a COCO file: for each class, the usual shapes of its masks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.coco_annotations import shorten
from centermask.datasets.shape_priors import SIZE, make_priors
from centermask.engine.cli import not_negative, positive, run


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('annotations', type=Path, help="the training data's annotations in COCO format")
    parser.add_argument('out', type=Path, metavar='OUT.npy', help="file to write, the config's model.roi_head.priors")
    parser.add_argument('--priors', type=positive, default=20, help='shapes of each class (default 20)')
    parser.add_argument('--max-masks', type=positive, default=10000, help='masks read of each class (default 10000)')
    parser.add_argument('--seed', type=not_negative, default=0, help='of the random numbers (default 0)')
    args = parser.parse_args(argv)
    counts = make_priors(args.annotations, args.out, args.priors, args.max_masks, args.seed)
    print(
        f'{args.out}: {args.priors} shapes of {SIZE}x{SIZE} for each of {len(counts)} classes, '
        f'from {sum(counts.values())} masks'
    )
    if few := [f'{name} ({count})' for name, count in counts.items() if 0 < count < args.priors]:
        print(f'Fewer masks than shapes, which repeat them: {shorten(few)}')
    if none := [name for name, count in counts.items() if not count]:
        print(f'No masks, so shapes of 0: {shorten(none)}')


if __name__ == '__main__':
    sys.exit(run(main))
