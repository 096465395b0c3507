_base_ = './paper.py'
model = dict(
    backbone=dict(
        arch='99', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/3wflmwz0wx50ywt/vovnet99_ese_state_dict.pth')
    )
)
