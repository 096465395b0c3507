_base_ = './centermask_v2-39_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='57', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/vci2ih0nq3t3lu4/vovnet57_ese_state_dict.pth')
    )
)
