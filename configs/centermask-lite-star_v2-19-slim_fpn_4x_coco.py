_base_ = [
    './_base_/models/star_lite.py',
    './_base_/datasets/coco_star_lite.py',
    './_base_/schedules/star_4x.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='19-slim',
        init_cfg=dict(checkpoint='https://dl.dropbox.com/s/8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth'),
    ),
    neck=dict(in_channels=[256, 384, 512]),
)
