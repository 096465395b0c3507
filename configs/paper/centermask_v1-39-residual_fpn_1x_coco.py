# Table 4: VoVNetV1-39 with residual connections. It starts from V2's ImageNet weights as V1 does.
_base_ = './centermask_v1-39_fpn_1x_coco.py'
model = dict(backbone=dict(residual=True))
