_base_ = ['./paper.py', './resnet50.py']
model = dict(
    backbone=dict(_delete_=True, norm_cfg=_base_.model.backbone.norm_cfg, **_base_.resnet50),
    neck=dict(in_channels=[512, 1024, 2048]),
)
