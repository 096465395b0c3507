_base_ = './centermask_hrnetv2-w32_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(18, 36)),
            stage3=dict(num_channels=(18, 36, 72)),
            stage4=dict(num_channels=(18, 36, 72, 144)),
        ),
        init_cfg=dict(checkpoint='open-mmlab://msra/hrnetv2_w18'),
    ),
    neck=dict(in_channels=[18, 36, 72, 144]),
)
