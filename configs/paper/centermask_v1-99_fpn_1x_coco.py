# VoVNetV1-99. There are no ImageNet weights of it here: it starts from those of V2, its attention left out.
_base_ = './centermask_v2-99_fpn_1x_coco.py'
model = dict(backbone=dict(attention='none', residual=False))
