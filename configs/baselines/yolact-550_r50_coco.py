# YOLACT in its own recipe: MMDetection's, for 800k iterations of 8 images and with this project's data set and runner.
_base_ = 'mmdet::yolact/yolact_r50_1xb8-55e_coco.py'
custom_imports = dict(imports=['centermask'])
runner_type = 'CenterMaskRunner'

# Anchors are int(s · size / 550) long at ratio 1, with s = 24, 48, 96, 192, 384.
model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=1, base_sizes=[24, 48, 96, 192, 384])))

dataset_type = 'CenterMaskCocoDataset'
train_dataloader = dict(sampler=dict(type='InfiniteSampler'), dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
val_evaluator = dict(type='CenterMaskCocoMetric')
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=800000, val_interval=10000)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.1, begin=0, end=501),
    dict(type='MultiStepLR', by_epoch=False, milestones=[280000, 600000, 700000, 750000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False)
