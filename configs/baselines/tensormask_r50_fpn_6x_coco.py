_base_ = './tensormask_r50_fpn_1x_coco.py'
train_pipeline = [
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], resize_type='centermask.Resize')
    if step['type'] == 'Resize'
    else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters=540000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[480000, 520000], gamma=0.1)]
