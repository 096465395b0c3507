# The released model was trained without mask scoring: the mask score is the box score.
_base_ = './centermask-lite_v2-39_fpn_4x_coco.py'
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
    roi_head=dict(mask_iou_head=None),
)
