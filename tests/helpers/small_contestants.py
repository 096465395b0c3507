"""Small models of each kind that can be timed."""

from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config

from centermask.benchmark.pictures import set_size
from helpers.read_configs import read_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RESNET = dict(depth=18, init_cfg=None)
NECK = dict(in_channels=[64, 128, 256, 512])
MASK_RCNN = dict(backbone=RESNET, neck=NECK, test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))
KINDS = {
    'star': ('centermask-lite-star_v2-19-slim_fpn_4x_coco', {}),
    'paper': ('centermask-lite_v2-19_fpn_4x_coco', {}),
    'RetinaMask': ('retinamask_r101_fpn_2x_coco', dict(backbone=RESNET, neck=dict(in_channels=[128, 256, 512]))),
    'Mask R-CNN': ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', MASK_RCNN),
    'YOLACT': ('mmdet::yolact/yolact_r50_1xb8-55e_coco.py', dict(backbone=RESNET, neck=NECK)),
}


def small_config(kind: str, detections: int) -> Config:
    name, changes = KINDS[kind]
    config = get_config(name) if '::' in name else read_config(name)
    config.merge_from_dict(dict(model=changes))
    settings = config.model.test_cfg
    settings.get('rcnn', settings)['max_per_img'] = detections
    set_size(config, 96, 128)
    return config
