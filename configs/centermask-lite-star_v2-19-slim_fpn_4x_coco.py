_base_ = './centermask-lite-star_v2-39_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        arch='19-slim',
        init_cfg=dict(checkpoint='https://dl.dropbox.com/s/8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth'),
    ),
    neck=dict(in_channels=[256, 384, 512]),
)
