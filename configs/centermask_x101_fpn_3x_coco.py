# ResNeXt-101 32×8d has its stride in the 3×3 convs. Its ImageNet weights expect pixels that are not divided by a std.
_base_ = './centermask_r101_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        style='pytorch',
        init_cfg=dict(
            checkpoint='https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl'
        ),
    )
)
