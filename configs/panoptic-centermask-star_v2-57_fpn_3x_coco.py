_base_ = './panoptic-centermask-star_v2-39_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        arch='57', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/8xl0cb3jj51f45a/vovnet57_ese_detectron2.pth')
    )
)
