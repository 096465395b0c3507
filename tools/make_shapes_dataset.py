"""Draw a data set of textured shapes in COCO format: OUT/images/*.jpg and OUT/annotations.json.

With --panoptic on three kinds of ground, with OUT/panoptic.json and OUT/panoptic/*.png in COCO's panoptic format.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centermask.datasets.panoptic_shapes import STUFF, make_panoptic_dataset
from centermask.datasets.shapes import CLASSES, make_dataset
from centermask.engine.cli import not_negative, positive, run


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--images', type=positive, required=True, help='number of images')
    parser.add_argument('--seed', type=not_negative, default=0, help='another seed gives other images (default 0)')
    parser.add_argument('--panoptic', action='store_true', help=f'draw them on {", ".join(STUFF)}, which are stuff')
    args = parser.parse_args(argv)
    make = make_panoptic_dataset if args.panoptic else make_dataset
    coco = make(args.out, args.images, args.seed)
    crowds = sum(annotation['iscrowd'] for annotation in coco['annotations'])
    objects = len(coco['annotations']) - crowds
    print(f'{args.out}: {args.images} images, {objects} objects ({", ".join(CLASSES)}), {crowds} crowds')


if __name__ == '__main__':
    sys.exit(run(main))
