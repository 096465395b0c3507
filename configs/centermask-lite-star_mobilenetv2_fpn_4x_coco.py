_base_ = './centermask-lite-star_v2-39_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2Features',
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(
            type='StrictPretrained', checkpoint='https://dl.dropbox.com/s/yduxbc13s3ip6qn/mobilenet_v2_detectron2.pth'
        ),
    ),
    neck=dict(in_channels=[32, 96, 320]),
)
