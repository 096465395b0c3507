# The paper recipe's 1x: the shorter side is 800 in training too.
_base_ = './coco_paper.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(type='Resize', _scope_='centermask', scale=(1333, 800), keep_ratio=True, rounding='down'),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
