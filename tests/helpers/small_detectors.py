"""Small models of each kind that the benchmark times."""

from pathlib import Path

from mmengine.config import Config

from centermask.benchmark.models import (
    AS_SHIPPED,
    Settings,
    TimedModel,
    Variant,
    read_config,
    synthetic_image,
    timed_model,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RESNET = dict(depth=18, init_cfg=None)
NECK = dict(in_channels=[64, 128, 256, 512])
MASK_RCNN = dict(backbone=RESNET, neck=NECK, test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))
KINDS = {
    'star': (str(CONFIGS / 'centermask-lite-star_v2-19-slim_fpn_4x_coco.py'), {}),
    'paper': (str(CONFIGS / 'centermask-lite_v2-19_fpn_4x_coco.py'), {}),
    'panoptic': (str(CONFIGS / 'demo/panoptic-centermask-lite-star_v2-19-slim_shapes.py'), {}),
    'TensorMask': (str(CONFIGS / 'baselines/tensormask_r50_fpn_1x_coco.py'), dict(backbone=RESNET, neck=NECK)),
    'ShapeMask': (str(CONFIGS / 'baselines/shapemask_r101_fpn_2x_coco.py'), dict(backbone=RESNET, neck=NECK)),
    'Mask R-CNN': ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', MASK_RCNN),
    'YOLACT': ('mmdet::yolact/yolact_r50_1xb8-55e_coco.py', dict(backbone=RESNET, neck=NECK)),
    'RTMDet-Ins': ('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', {}),
}


def small_config(kind: str) -> Config:
    name, changes = KINDS[kind]
    config = read_config(name)
    config.merge_from_dict(dict(model=changes))
    return config


def small_model(kind: str, detections: int = 5, masks: str = 'tensor', variant: Variant = AS_SHIPPED) -> TimedModel:
    return timed_model(small_config(kind), small_settings(detections, masks), variant)


def small_settings(detections: int = 5, masks: str = 'tensor', **others: object) -> Settings:
    return Settings([synthetic_image()], detections, size=(96, 128), masks=masks, **others)
