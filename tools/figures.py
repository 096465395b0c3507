"""Draw the paper's Fig. 1 (AP against time) and Fig. 4 (results on images)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.device import get_device

from centermask.benchmark.metafile import read_metafile
from centermask.benchmark.tradeoff import draw_tradeoff
from centermask.datasets.images import find_images
from centermask.engine.cli import add_config_options, fraction, positive, require_file, require_writable, run
from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer, require_device
from centermask.report.sheet import draw_sheet
from centermask.utils.errors import InputError

METAFILE = Path(__file__).resolve().parents[1] / 'configs/metafile.yml'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    figures = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')

    def add(name: str, draw: Callable, out: str, text: str) -> argparse.ArgumentParser:
        figure = figures.add_parser(name, help=text, description=text)
        figure.set_defaults(draw=draw)
        figure.add_argument('--out', type=Path, help=f'file to write (default work_dirs/figures/{out})')
        return figure

    tradeoff = add('1', figure_1, 'fig1.png', 'mask AP against time: the points of the paper, and of a benchmark')
    tradeoff.add_argument(
        '--benchmark',
        type=Path,
        help='JSON file {"machine": NAME, "models": [{"config": NAME, "ms": NUMBER, "mask AP": NUMBER or left out}]}',
    )
    sheet = add('4', figure_4, 'fig4.png', 'a sheet of images with masks, boxes, classes and mask scores')
    sheet.add_argument('config', help='config file, or the name of a model')
    sheet.add_argument('checkpoint', help='checkpoint file')
    sheet.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER', help='images, or folders of them')
    sheet.add_argument('--score-thr', type=fraction, default=0.3, help='least score of what is drawn (default 0.3)')
    sheet.add_argument('--columns', type=positive, default=4, help='images in a row (default 4)')
    sheet.add_argument('--device', default=get_device(), help='cpu, cuda, cuda:1 ... (default %(default)s)')
    add_config_options(sheet)
    return parser.parse_args(argv)


def figure_1(args: argparse.Namespace) -> None:
    out = _writable(args.out, 'fig1.png', ('.png', '.svg', '.pdf'))
    unknown = draw_tradeoff(read_metafile(METAFILE)[0], out, args.benchmark)
    print(f'AP against time: {out}')
    if unknown:
        print(f'not in the plot, since their mask AP is unknown: {", ".join(unknown)}')


def figure_4(args: argparse.Namespace) -> None:
    images = [image for source in args.images for image in find_images(source)]
    cfg = load_config(args.config, args.cfg_options)
    require_file(args.checkpoint, 'checkpoint')
    require_device(args.device)
    out = _writable(args.out, 'fig4.png', ('.png', '.jpg'))
    counts = draw_sheet(
        images, CenterMaskInferencer(cfg, args.checkpoint, args.device), out, args.score_thr, args.columns
    )
    print(f'{sum(counts)} detections above {args.score_thr} on {len(images)} images: {out}')


def _writable(out: Path | None, name: str, endings: Sequence[str]) -> Path:
    """Return the file to write, after creating its folder."""
    out = out or Path('work_dirs/figures') / name
    if out.suffix not in endings:
        raise InputError(f'--out {out}: its name must end in {" or ".join(endings)}.')
    require_writable(out.parent, '--out')
    return out


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    args.draw(args)


if __name__ == '__main__':
    sys.exit(run(main))
