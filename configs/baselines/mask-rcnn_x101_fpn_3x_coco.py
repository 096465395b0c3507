_base_ = './mask-rcnn_r101_fpn_2x_coco.py'
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
train_cfg = dict(max_iters=270000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[210000, 250000], gamma=0.1)]
