"""Export a detector: python tools/export.py CONFIG [CHECKPOINT] --format onnx|openvino|web --out FILE_OR_FOLDER."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from centermask.datasets.images import find_images
from centermask.detector import CenterMask
from centermask.engine.cli import add_config_options, positive, require_writable, run
from centermask.engine.configs import build_runner, load_config
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.engine.model_names import released_weights
from centermask.export.compare import compare_file
from centermask.export.exported_detector import use_exported_file
from centermask.export.files import convert, save_onnx
from centermask.export.inputs import make_inputs, paths_of_dataset, read_images, synthetic_images
from centermask.export.metadata import Metadata
from centermask.export.onnx import describe, has_deform_conv, to_onnx
from centermask.export.runtime import is_exported, require
from centermask.utils.atomic_io import TMP_PREFIX, atomic_folder
from centermask.utils.errors import InputError, RunError
from centermask.web.runtime import fetch_runtime
from centermask.web.site import MODEL, is_site, require_page_resizing, write_page

# The first is that of --out, which is a folder for the web.
SUFFIXES = {'onnx': ('.onnx',), 'openvino': ('.xml', '.bin'), 'web': ('',)}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('config', help='config file, or the name of a model')
    parser.add_argument('checkpoint', nargs='?', help="checkpoint file (default: the model's released weights)")
    parser.add_argument('--format', choices=[*SUFFIXES], default='onnx', help='default %(default)s')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='file to write: .onnx, or .xml (with a .bin beside it) for OpenVINO; the folder of the page for web',
    )
    parser.add_argument(
        '--preprocess', action='store_true', help='take bytes (N, H, W, 3) in BGR; normalise and pad inside'
    )
    parser.add_argument(
        '--full-masks', action='store_true', help='give masks of the size of the images, not 28×28 in their boxes'
    )
    parser.add_argument(
        '--fixed', action='store_true', help='give max_per_img detections for each image, missing ones with label −1'
    )
    reduced = parser.add_mutually_exclusive_group()
    reduced.add_argument('--half', action='store_true', help='float16 (ONNX), bfloat16 where the CPU can (OpenVINO)')
    reduced.add_argument('--int8', action='store_true', help="quantise by the runtime's own tool, on --calibration")
    parser.add_argument(
        '--calibration', metavar='FOLDER', help="images to quantise on (default: some of the config's training data)"
    )
    parser.add_argument(
        '--calibration-count', type=positive, default=32, help='number of them at most (default %(default)s)'
    )
    parser.add_argument(
        '--images', metavar='FOLDER', help="images to compare on (default: four of the config's test data)"
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> None:
    """Refuse what can't work, before the slow export."""
    if args.out.suffix != SUFFIXES[args.format][0]:
        name = f'file ends in {SUFFIXES[args.format][0]}' if args.format != 'web' else 'folder has no suffix'
        raise InputError(f'--out {args.out}: the name of such a {name}.')
    if args.format != 'web' and args.out.is_dir():
        raise InputError(f'--out {args.out} is a folder: name a file.')
    if args.format == 'web':
        for option in ('preprocess', 'full_masks', 'fixed', 'half'):
            if getattr(args, option):
                raise InputError(
                    f"--{option.replace('_', '-')} doesn't go with --format web, whose page takes a model of one form: "
                    'leave it out.'
                )
    if args.calibration and not args.int8:
        raise InputError('--calibration is for --int8, add that or leave it out.')
    for folder in filter(None, (args.images, args.calibration)):
        find_images(folder)
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        require(package)
    if args.format == 'openvino':
        require('openvino')
        if args.int8:
            require('nncf')


def calibration_images(args: argparse.Namespace, cfg: Config) -> list[Tensor]:
    """Return the images to quantise on."""
    count = args.calibration_count
    files = (
        find_images(args.calibration)[:count]
        if args.calibration
        else paths_of_dataset(cfg.train_dataloader.dataset, count)
    )
    if not files:
        raise InputError("--int8 needs images and the config's training data are not here: give --calibration FOLDER.")
    print(f'quantising on {len(files)} images')
    return read_images(cfg, files)


def print_comparison(args: argparse.Namespace, cfg: Config, model: CenterMask, file: Path) -> None:
    """Print how the detections of a file agree with the checkpoint's; raise a :class:`RunError` if they don't."""
    files = find_images(args.images) if args.images else paths_of_dataset(cfg.test_dataloader.dataset, 4)
    images = read_images(cfg, files) if files else synthetic_images()
    # The page runs ONNX Runtime, which comes first.
    for runtime, comparison in islice(compare_file(model, file, images), 1 if args.format == 'web' else None):
        if isinstance(comparison, InputError):
            print(f'not compared in {runtime}: {comparison}')
            continue
        print(f'{runtime} on {len(images)} {"images" if files else "synthetic images"}: {comparison}')
        if not comparison.agrees:
            raise RunError(
                f'{args.out} is not written, since its detections in {runtime} differ from those of {args.checkpoint}: '
                f'{comparison}.'
            )


def measure_ap(cfg: Config, file: str) -> dict[str, float]:
    """Return ``{'bbox_mAP': …, 'segm_mAP': …}`` of a checkpoint or an exported file, as tools/test.py measures it."""
    cfg = cfg.copy()
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.load_from, cfg.resume, cfg.launcher = file, False, 'none'
        if is_exported(file):
            use_exported_file(cfg, file)
        figures = build_runner(cfg).test()
    return {key.partition('/')[2]: value for key, value in figures.items() if key.endswith('mAP')}


def print_accuracy(args: argparse.Namespace, cfg: Config) -> None:
    """Print the AP that reduced precision costs."""
    if not paths_of_dataset(cfg.test_dataloader.dataset, 1):
        print("the loss of AP is not measured, since the config's test data are not here")
        return
    file = args.out / MODEL if args.format == 'web' else args.out
    before, after = measure_ap(cfg, args.checkpoint), measure_ap(cfg, str(file))
    for key, value in before.items():
        print(f'{key}: {value:.3f} by the checkpoint, {after[key]:.3f} by the file, {value - after[key]:+.3f} lost')


def write_model(args: argparse.Namespace, cfg: Config, model: CenterMask, metadata: Metadata, file: Path) -> None:
    """Export a detector to a file in a folder of its own, and compare it where nothing was rounded."""
    print(f'exporting {args.checkpoint}, which takes a minute')
    exported, source = to_onnx(model, metadata), file.with_name(f'{TMP_PREFIX}float32.onnx')
    inputs = make_inputs(model, calibration_images(args, cfg), metadata.preprocess) if args.int8 else ()
    save_onnx(exported, source)
    convert(source, file, metadata, inputs)
    source.unlink()
    if metadata.precision == 'float32':
        print_comparison(args, cfg, model, file)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_options(args)
    cfg = load_config(args.config, args.cfg_options)
    require_writable(args.out.parent, '--out')
    args.checkpoint = args.checkpoint or released_weights(args.config)
    model = CenterMaskInferencer(cfg, args.checkpoint, 'cpu').model
    metadata = describe(model, cfg, args.preprocess or args.format == 'web', args.full_masks, args.fixed)
    metadata = replace(metadata, precision='half' if args.half else 'int8' if args.int8 else 'float32')
    if args.format == 'openvino' and has_deform_conv(model):
        raise InputError("OpenVINO doesn't run deformable convs of this kind: export with --format onnx.")
    # Written and compared beside --out, then put in place.
    if args.format == 'web':
        require_page_resizing(cfg)
        with atomic_folder(args.out, is_site) as folder:
            write_page(folder, metadata)
            fetch_runtime(folder / 'onnxruntime')
            write_model(args, cfg, model, metadata, folder / MODEL)
        size = sum(path.stat().st_size for path in args.out.rglob('*'))
        print(f'{args.out} is written, {size / 1e6:.1f} MB. Any web server can give it to browsers; here:')
        print(f'python -m http.server 8000 -d {shlex.quote(str(args.out))}    # then open http://localhost:8000')
    else:
        with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=TMP_PREFIX) as place:
            file = Path(place) / args.out.name
            write_model(args, cfg, model, metadata, file)
            for suffix in reversed(SUFFIXES[args.format]):
                out = args.out.with_suffix(suffix)
                try:
                    file.with_suffix(suffix).replace(out)
                except OSError as error:
                    raise RunError(f"{out} can't be written ({error.strerror}): name another file.") from error
                print(f'{out} is written, {out.stat().st_size / 1e6:.1f} MB')
    if metadata.precision != 'float32':
        print_accuracy(args, cfg)


if __name__ == '__main__':
    sys.exit(run(main))
