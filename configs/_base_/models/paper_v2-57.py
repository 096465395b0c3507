_base_ = './paper.py'
model = dict(
    backbone=dict(
        arch='57', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/vci2ih0nq3t3lu4/vovnet57_ese_state_dict.pth')
    )
)
