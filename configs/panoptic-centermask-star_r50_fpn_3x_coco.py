_base_ = './panoptic-centermask-star_v2-39_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        init_cfg=dict(type='StrictPretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
