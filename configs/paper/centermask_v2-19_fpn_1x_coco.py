_base_ = './centermask_v2-39_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='19', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/f5db5r6jjia2wj8/vovnet19-ese-statedict.pth')
    )
)
