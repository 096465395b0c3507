_base_ = ['./centermask-star_v2-39_fpn_3x_coco.py', './_base_/models/resnet50.py']
model = dict(
    backbone=dict(_delete_=True, norm_cfg=_base_.model.backbone.norm_cfg, **_base_.resnet50),
    neck=dict(in_channels=[512, 1024, 2048]),
)
