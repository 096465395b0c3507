# Lite sizes of coco_star_panoptic.py, as coco_star_lite.py has them.
_base_ = './coco_star_panoptic.py'

train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(type='RandomChoiceResize', scales=[(1000, 580), (1000, 600)], resize_type='centermask.Resize'),
    *_base_.train_pipeline[3:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', _scope_='centermask', scale=(1000, 600), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
