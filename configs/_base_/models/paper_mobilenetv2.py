_base_ = ['./paper.py', './mobilenetv2.py']
model = dict(
    backbone=dict(_delete_=True, norm_cfg=_base_.model.backbone.norm_cfg, **_base_.mobilenetv2),
    neck=dict(in_channels=[32, 96, 320]),
)
