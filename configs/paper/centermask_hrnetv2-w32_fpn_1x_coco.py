# HRNetV2-W32 with all four branches. Its ImageNet weights are of RGB pixels divided by their standard deviation.
_base_ = './centermask_v2-39_fpn_1x_coco.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='HRNet',
        extra=dict(
            stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(4,), num_channels=(64,)),
            stage2=dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(4, 4), num_channels=(32, 64)),
            stage3=dict(num_modules=4, num_branches=3, block='BASIC', num_blocks=(4, 4, 4), num_channels=(32, 64, 128)),
            stage4=dict(
                num_modules=3, num_branches=4, block='BASIC', num_blocks=(4, 4, 4, 4), num_channels=(32, 64, 128, 256)
            ),
        ),
        norm_cfg=dict(type='BN', requires_grad=False, eps=0),
        norm_eval=True,
        init_cfg=dict(type='StrictPretrained', checkpoint='open-mmlab://msra/hrnetv2_w32'),
    ),
    # The finest branch has stride 4: convs of stride 2 make P3 of it, and P4 to P7 of what is pooled from it.
    neck=dict(_delete_=True, type='HRFPN', in_channels=[32, 64, 128, 256], out_channels=256, num_outs=5, stride=2),
)
