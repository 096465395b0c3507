_base_ = './centermask_v2-39_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2Features',
        norm_cfg=dict(type='BN', requires_grad=False, eps=0),
        norm_eval=True,
        init_cfg=dict(
            type='StrictPretrained', checkpoint='https://dl.dropbox.com/s/yduxbc13s3ip6qn/mobilenet_v2_detectron2.pth'
        ),
    ),
    neck=dict(in_channels=[32, 96, 320]),
)
