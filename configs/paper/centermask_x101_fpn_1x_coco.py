_base_ = './centermask_r101_fpn_1x_coco.py'
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
