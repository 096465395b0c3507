"""A small CenterMask that runs in a fraction of a second, and images with polygons for it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.structures import InstanceData
from torch import Tensor

from centermask import CenterMask
from helpers.read_configs import read_config

MODELS_FOLDER = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
# Files of MODELS_FOLDER.
RECIPES = {'paper': 'centermask', 'star': 'centermask_star', 'panoptic': 'panoptic_centermask_star'}
WIDTH = 32
SMALL = {
    'num_classes': 3,
    'backbone': dict(arch='19-slim', init_cfg=None),
    'neck': dict(in_channels=[256, 384, 512], out_channels=WIDTH),
    'bbox_head': dict(
        in_channels=WIDTH,
        feat_channels=WIDTH,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
    ),
    'roi_head.mask_roi_extractor': dict(out_channels=WIDTH),
    'roi_head.mask_head': dict(num_convs=1, in_channels=WIDTH, conv_out_channels=WIDTH),
    'roi_head.mask_iou_head': dict(num_convs=2, in_channels=WIDTH, conv_out_channels=WIDTH, fc_out_channels=16),
}
SMALL_PANOPTIC = {
    'neck': dict(in_channels=[112, 256, 384, 512]),
    'semantic_head': dict(num_stuff_classes=2, in_channels=WIDTH, inner_channels=WIDTH),
    'panoptic_fusion': dict(score_thr=0.05, stuff_area_limit=64),
}

Object = tuple[int, list[list[float]]]
"""Class and polygons of an object, the polygons as flat lists x0, y0, x1, y1, …"""


def small_model_config(recipe: str = 'star', changes: dict[str, Any] | None = None) -> dict:
    """Return the config of the recipe's model, narrower and shallower, with ``changes`` by dotted keys."""
    config = read_config(f'_base_/models/{RECIPES[recipe]}')
    for small in (SMALL, SMALL_PANOPTIC) if recipe == 'panoptic' else (SMALL,):
        config.merge_from_dict({f'model.{key}': value for key, value in small.items()})
    config.merge_from_dict({f'model.{key}': value for key, value in (changes or {}).items()})
    return config.model


def small_model(recipe: str = 'star', changes: dict[str, Any] | None = None) -> CenterMask:
    """Build a small model in evaluation mode, with random weights of a fixed seed that find boxes of some size."""
    torch.manual_seed(0)
    model = MODELS.build(small_model_config(recipe, changes))
    torch.nn.init.constant_(model.bbox_head.conv_reg.bias, 2.0)  # 2 strides (star), exp(2) pixels (paper)
    return model.eval()


def square(label: int, left: float, top: float, right: float, bottom: float) -> Object:
    """Return an object that fills its box."""
    return label, [[left, top, right, top, right, bottom, left, bottom]]


def noise_image(height: int, width: int, seed: int = 0) -> Tensor:
    """Return an image of noise, (3, height, width), uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def truth(objects: list[Object], height: int, width: int) -> InstanceData:
    """Return ground truth as the loader packs it: ``bboxes``, ``labels`` and polygons ``masks``."""
    polygons = [[np.array(polygon, np.float64) for polygon in shape] for _, shape in objects]
    points = [np.concatenate([polygon.reshape(-1, 2) for polygon in shape]) for shape in polygons]
    boxes = [np.concatenate([p.min(0), p.max(0)]) for p in points]
    return InstanceData(
        bboxes=torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
        labels=torch.tensor([label for label, _ in objects], dtype=torch.long),
        masks=PolygonMasks(polygons, height, width),
    )


def sample(height: int, width: int, objects: list[Object] | None = None, **metainfo) -> DetDataSample:
    """Return the sample of one image: its metainfo, and ground truth if ``objects`` are given."""
    result = DetDataSample(
        metainfo={
            'img_shape': (height, width),
            'ori_shape': (height, width),
            'scale_factor': (1.0, 1.0),
            'flip': False,
            'flip_direction': None,
            **metainfo,
        }
    )
    if objects is not None:
        result.gt_instances = truth(objects, height, width)
        result.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return result


def batch(model: CenterMask, images: list[Tensor], samples: list[DetDataSample]) -> tuple[Tensor, list[DetDataSample]]:
    """Return images normalised and padded by the model's preprocessor, with their samples."""
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=False)
    return data['inputs'], data['data_samples']


def without_gradient(module: torch.nn.Module) -> list[str]:
    """Return the names of trainable parameters without a gradient."""
    return [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]


def unlike_identity(module: torch.nn.Module) -> torch.nn.Module:
    """Set weights and statistics of BN to values that change features."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.add_(torch.rand(tensor.shape, generator=generator) / 2)
    return module
