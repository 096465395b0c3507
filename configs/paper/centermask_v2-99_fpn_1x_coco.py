_base_ = './centermask_v2-39_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='99', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/3wflmwz0wx50ywt/vovnet99_ese_state_dict.pth')
    )
)
