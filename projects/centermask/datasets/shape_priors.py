"""ShapeMask's priors from annotated masks: for each class, the centres that k-means finds of its masks' shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils
from tqdm import tqdm

from centermask.baselines.shapemask_targets import sample_in_box
from centermask.datasets.coco_annotations import CocoAnnotations, box_has_area, classes_of
from centermask.utils.atomic_io import atomic_write
from centermask.utils.errors import InputError

SIZE = 32
MAX_ITERATIONS = 100


def make_priors(
    ann_file: str | Path, out: Path, num_priors: int = 20, max_masks: int = 10000, seed: int = 0
) -> dict[str, int]:
    """Write the shapes of each class to a ``.npy`` file of shape (classes, K, 32, 32), float32, and return its counts.

    Classes are in the order of their ids, shapes in the order of how many masks are nearest. A class of fewer than K
    masks has each mask as a shape, and repeats them. One without any has shapes of 0. Crowds are left out. The same
    arguments give the same file.

    Args:
        ann_file: annotations in COCO format.
        out: the file to write.
        num_priors: K, shapes of each class.
        max_masks: most masks of a class, drawn at random, that are read.
        seed: of the random numbers.

    Returns:
        How many masks of each class were read.

    Raises:
        InputError: the annotation file can't be used, or has no mask.
    """
    coco = CocoAnnotations(str(ann_file), warn=True)
    names = classes_of(coco.dataset)
    drawn = []
    for label, category in enumerate(coco.get_cat_ids(cat_names=names)):
        objects = [each for each in coco.load_anns(coco.get_ann_ids(cat_ids=[category])) if _is_usable(coco, each)]
        order = np.random.default_rng([seed, label]).permutation(len(objects))[:max_masks]
        drawn.append([objects[i] for i in order])
    if not any(drawn):
        raise InputError(f'The annotation file {ann_file} has no object with a usable outline: give another.')

    priors = np.zeros((len(names), num_priors, SIZE, SIZE), np.float32)
    with tqdm(total=sum(map(len, drawn)), unit='mask') as progress:
        for label, (name, objects) in enumerate(zip(names, drawn, strict=True)):
            progress.set_description(name, refresh=False)
            masks = np.zeros((len(objects), SIZE * SIZE), np.float32)
            for mask, each in zip(masks, objects, strict=True):
                mask[:] = _crop(each, coco.imgs[each['image_id']]).ravel()
                progress.update()
            if len(masks) <= num_priors:
                shapes = masks[np.arange(num_priors) % len(masks)] if len(masks) else priors[label]
            else:
                shapes = k_means(masks, num_priors, np.random.default_rng([seed, label]))
            priors[label] = shapes.reshape(-1, SIZE, SIZE)

    def save(path: Path) -> None:
        with open(path, 'wb') as file:  # given a path, NumPy would change its ending
            np.save(file, priors)

    atomic_write(out, save)
    return dict(zip(names, map(len, drawn), strict=True))


def k_means(points: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Return the centres of k clusters, (k, D), those of the most points first, by k-means++ and Lloyd's iterations.

    Args:
        points: more than k, shape (N, D).
        k: number of clusters.
        random: draws the first centres.
    """
    centres = points[random.integers(len(points))][None]
    nearest = np.full(len(points), np.inf)
    while len(centres) < k:  # each next one far from those before
        nearest = np.minimum(nearest, _squared_distances(points, centres[-1:])[:, 0])
        weights = nearest / nearest.sum() if nearest.any() else None  # None: fewer different points than clusters
        centres = np.concatenate([centres, points[random.choice(len(points), p=weights)][None]])
    cluster = np.full(len(points), -1)
    for _ in range(MAX_ITERATIONS):
        before, cluster = cluster, _squared_distances(points, centres).argmin(1)
        if (cluster == before).all():
            break
        for i in np.unique(cluster):
            centres[i] = points[cluster == i].mean(0)
    sizes = np.bincount(cluster, minlength=k)
    return centres[np.argsort(-sizes, kind='stable')]


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distances of points (N, D) to centres (K, D), shape (N, K)."""
    products = points @ centres.T
    return np.maximum((points**2).sum(1)[:, None] - 2 * products + (centres**2).sum(1), 0)


def _is_usable(coco: CocoAnnotations, each: dict) -> bool:
    return bool(each['segmentation']) and not each['iscrowd'] and box_has_area(each, coco.imgs[each['image_id']])


def _crop(each: dict, image: dict) -> np.ndarray:
    """Return an object's mask in its box, bool, shape (32, 32)."""
    mask = each['segmentation']
    if isinstance(mask, dict):
        mask = mask_utils.decode(mask)
    x, y, width, height = each['bbox']
    size = int(image['height']), int(image['width'])
    return sample_in_box(mask, np.array([x, y, x + width, y + height]), size, (SIZE,))[0]
