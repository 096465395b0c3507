_base_ = './centermask-lite_v2-39_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        arch='19', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/f5db5r6jjia2wj8/vovnet19-ese-statedict.pth')
    )
)
