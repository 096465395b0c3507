# Paper recipe, 2x and longer: the shorter side is any length from 640 to 800 in training.
_base_ = './coco_paper.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], resize_type='FloorResize'),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
