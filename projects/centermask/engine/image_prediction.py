"""Prediction on images: which can be used, detections drawn on them, and COCO results."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import mmcv
from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from mmengine.utils import track_iter_progress

from centermask.datasets.coco_annotations import shorten
from centermask.datasets.images import ImageFacts, describe_range, inspect_image
from centermask.engine.coco_results import CocoResults
from centermask.engine.inferencer import CenterMaskInferencer
from centermask.engine.panoptic_results import PanopticResults
from centermask.utils.errors import InputError, RunError


def inspect_images(images: Sequence[Path], max_pixels: int) -> tuple[list[Path], dict[Path, InputError]]:
    """Return the images that can be used, and why others can't; say both, and which look almost black.

    Raises:
        InputError: none can be used.
    """
    facts: dict[Path, ImageFacts] = {}
    refused: dict[Path, InputError] = {}
    for image in images:
        try:
            facts[image] = inspect_image(image, max_pixels)
        except InputError as error:
            refused[image] = error
    if not facts:
        raise refused[images[0]]
    for reason in refused.values():
        print(f'left out: {reason}', file=sys.stderr)
    if remark := describe_range(facts.values()):
        print(f'{os.path.commonpath(images)}: {remark}', file=sys.stderr)
    return [*facts], refused


def require_all(images: Sequence[Path], refused: Collection[Path]) -> None:
    """Raise a :class:`RunError` where images were left out."""
    if refused:
        raise RunError(
            f'{len(refused)} of the {len(images)} images are left out, see above why, and the results of the others '
            f'are written: {shorten(refused)}.'
        )


def drawing_name(image: Path, root: Path) -> Path:
    """Return the name of an image's drawing within their folder: its path from ``root``, as JPEG if not writable."""
    name = image.relative_to(root)
    return name if name.suffix.lower() in IMG_EXTENSIONS else name.with_name(f'{name.name}.jpg')


def require_apart(images: Sequence[Path], out_dir: Path) -> None:
    """Raise an :class:`InputError` where drawn images would replace those that they are drawn on."""
    vis = (out_dir / 'vis').resolve()
    for image in images:
        if vis in (*image.parent.absolute().resolve().parents, image.parent.resolve(), *image.resolve().parents):
            raise InputError(
                f'--out-dir {out_dir}: drawn images go to its folder vis, where {image} is: name another one.'
            )


def predict_images(
    images: Sequence[Path], root: Path, inferencer: CenterMaskInferencer, out_dir: Path, score_thr: float
) -> None:
    """Write each image with its detections drawn, and all detections as COCO results; also panoptic maps.

    Boxes are scored by the detector and masks by its mask scoring head. The JSON files hold every detection, and are
    written also when an error or Ctrl-C ends the loop, with the detections until then. Of a panoptic model the panoptic
    map is drawn.

    Args:
        images: paths.
        root: folder that the names in the files are relative to.
        inferencer: the detector.
        out_dir: folder of ``vis/*``, ``predictions.bbox.json`` and ``predictions.segm.json``; of a panoptic model also
            of ``predictions.panoptic.json`` and ``predictions.panoptic/*.png``.
        score_thr: the least score of a detection that is drawn.
    """
    meta = inferencer.model.dataset_meta
    what = 'panoptic segments' if 'stuff_classes' in meta else f'detections above {score_thr}'
    print(f'{len(images)} images, {what} are drawn into {out_dir / "vis"}')
    results = CocoResults(images, root, meta['classes'], inferencer.cfg)
    stuff = meta.get('stuff_classes')
    panoptic = PanopticResults(results, stuff, inferencer.cfg, out_dir) if stuff else None
    done = 0
    try:
        for path in track_iter_progress(images):
            sample = inferencer(str(path), return_datasamples=True)['predictions'][0]
            inferencer.visualizer.add_datasample(
                path.name,
                mmcv.imread(path, channel_order='rgb', backend='cv2'),
                sample,
                draw_gt=False,
                pred_score_thr=score_thr,
                out_file=str(out_dir / 'vis' / drawing_name(path, root)),
            )
            results.add(path, sample.ori_shape, inferencer.pred2dict(sample))
            if panoptic:
                panoptic.add(path, sample.pred_panoptic_seg.sem_seg[0].cpu().numpy())
            done += 1
    finally:
        if done < len(images):
            print(f'\nstopped at {images[done]}: only the results of the {done} images before it are written')
        boxes, masks = results.write(out_dir)
        print(f'boxes with detection scores are in {boxes}, masks with mask scores in {masks}; {results.origin}')
        if panoptic:
            written = panoptic.write()
            print(f'panoptic segments are in {written}, their PNGs in {written.with_suffix("")}; {panoptic.origin}')
