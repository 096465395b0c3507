"""Files like a reference's, computed by a small model itself."""

import json
import re
from pathlib import Path

import numpy as np
from mmengine.config import Config
from parity.centermask import compute
from parity.comparison import Arrays, Computed
from parity.synthetic import fingerprint

from helpers.small_model import Object, noise_image, small_model_config, square, truth

ONE = [square(1, 20, 12, 70, 60)]
THREE = [square(0, 10, 10, 50, 40), square(2, 60, 20, 120, 90), square(1, 4, 50, 44, 92)]


def write_inputs(folder: Path) -> Path:
    """Write two images with one and three objects of three classes, and return the file."""
    arrays: Arrays = {
        'boxes': np.array([[20, 12, 70, 60], [3, 5, 20, 30], [40, 8, 126, 90]], np.float32),
        'labels': np.array([1, 0, 2]),
    }
    polygons = {}

    def add(suffix: str, objects: list[Object]) -> None:
        instances = truth(objects, 96, 128)
        arrays[f'image{suffix}'] = noise_image(96, 128, len(objects)).permute(1, 2, 0).numpy()
        arrays[f'gt_boxes{suffix}'] = instances.bboxes.numpy()
        arrays[f'gt_labels{suffix}'] = instances.labels.numpy()
        polygons[f'gt_polygons{suffix}'] = [shape for _, shape in objects]

    add('', ONE)
    add('2', THREE)
    path = folder / 'inputs.npz'
    np.savez(path, **arrays)
    path.with_suffix('.json').write_text(json.dumps(polygons))
    return path


def write_config(folder: Path, recipe: str = 'star', changes: dict | None = None) -> Path:
    """Write the config of a small model and return the file."""
    path = folder / 'config.py'
    Config(dict(model=small_model_config(recipe, changes), custom_imports=dict(imports=['centermask']))).dump(path)
    return path


def computed_by(config: Path, inputs: Path) -> Computed:
    """Return what the model of a config computes."""
    return compute(Config.fromfile(config), {}, inputs)


def as_in_files(computed: Arrays) -> Arrays:
    """Return the arrays as a reference writes them: maps as fingerprints, gradients of trained parameters only."""
    maps = r'(backbone|fpn|fcos|roi)\..*|(bias3\.)?det\.mask_probs|(.*\.)?sem\.logits(_full)?'
    return {
        name: fingerprint(array) if re.fullmatch(maps, name) else array
        for name, array in computed.items()
        if not ('grad.' in name and np.isnan(array))
    }
