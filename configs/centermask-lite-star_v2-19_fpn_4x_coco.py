_base_ = './centermask-lite-star_v2-39_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        arch='19', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/rptgw6stppbiw1u/vovnet19_ese_detectron2.pth')
    )
)
