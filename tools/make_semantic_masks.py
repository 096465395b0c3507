"""Make semantic PNGs from COCO's panoptic ones: python tools/make_semantic_masks.py PANOPTIC.json PNGS OUT."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.semantic_masks import make_semantic_masks
from centermask.engine.cli import positive, require_writable, run


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Make the semantic PNGs that a Panoptic-CenterMask trains on from panoptic ones, one byte a pixel: '
        '0 for every thing, 1, 2, ... for stuff by rising category id, 255 for no label. A run that was interrupted '
        'goes on where it stopped.'
    )
    parser.add_argument('annotations', type=Path, help="JSON file in COCO's panoptic format")
    parser.add_argument('pngs', type=Path, help='folder of its PNGs')
    parser.add_argument('out', type=Path, help='folder to write, such as data/coco/panoptic_stuff_train2017')
    parser.add_argument(
        '--processes', type=positive, default=os.cpu_count(), help='number of processes (default one for each core)'
    )
    args = parser.parse_args(argv)
    require_writable(args.out, 'OUT')
    written, kept = make_semantic_masks(args.annotations, args.pngs, args.out, args.processes)
    print(f'{args.out}: {written} semantic PNGs written, {kept} that were there already kept')


if __name__ == '__main__':
    sys.exit(run(main))
