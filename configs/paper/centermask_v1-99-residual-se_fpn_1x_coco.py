# Table 4: VoVNet-99 with residual connections and SE, whose layers start fresh; the others from V2's ImageNet weights.
_base_ = './centermask_v1-99-residual_fpn_1x_coco.py'
model = dict(backbone=dict(attention='se'))
