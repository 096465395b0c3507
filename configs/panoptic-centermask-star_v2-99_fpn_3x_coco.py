_base_ = './panoptic-centermask-star_v2-39_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        arch='99', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/1mlv31coewx8trd/vovnet99_ese_detectron2.pth')
    )
)
