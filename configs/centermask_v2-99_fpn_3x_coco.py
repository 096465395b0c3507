_base_ = [
    './_base_/models/centermask.py',
    './_base_/datasets/coco_paper.py',
    './_base_/schedules/paper_3x.py',
    './_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='99', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/3wflmwz0wx50ywt/vovnet99_ese_state_dict.pth')
    )
)
