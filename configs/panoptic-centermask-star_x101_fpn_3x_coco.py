# ResNeXt-101 32×8d: stride in the 3×3 convs, and pixels divided by their standard deviation.
_base_ = './panoptic-centermask-star_r101_fpn_3x_coco.py'
model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        style='pytorch',
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d'),
    ),
)
