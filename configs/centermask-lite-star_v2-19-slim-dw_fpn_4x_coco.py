_base_ = './centermask-lite-star_v2-19-slim_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        arch='19-slim-dw',
        init_cfg=dict(checkpoint='https://dl.dropbox.com/s/f3s7ospitqoals1/vovnet19_ese_slim_dw_detectron2.pth'),
    )
)
