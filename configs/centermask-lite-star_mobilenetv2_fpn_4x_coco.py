_base_ = ['./centermask-lite-star_v2-39_fpn_4x_coco.py', './_base_/models/mobilenetv2.py']
model = dict(
    backbone=dict(_delete_=True, norm_cfg=_base_.model.backbone.norm_cfg, **_base_.mobilenetv2),
    neck=dict(in_channels=[32, 96, 320]),
)
