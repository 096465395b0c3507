# The demo: CenterMask-Lite V2-19-slim on synthetic shapes of 160×160 pixels, from random weights, so BN trains.
_base_ = ['../_base_/models/centermask_star_lite.py', '../_base_/default_runtime.py']

classes = ('circle', 'triangle', 'square', 'star', 'cross')
data_root = 'data/shapes/'

model = dict(
    num_classes=len(classes),
    channels_last=True,
    backbone=dict(arch='19-slim', norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[256, 384, 512]),
    # Images hold at most 5 objects, so few RoIs and detections are enough.
    train_cfg=dict(sampler=dict(num=8)),
    test_cfg=dict(max_per_img=20),
)
metainfo = dict(classes=classes)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CenterMaskCocoDataset',
        data_root=data_root,
        ann_file='train/annotations.json',
        data_prefix=dict(img='train/images/'),
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
            # For --data; the demo's images have this size already.
            dict(type='Resize', _scope_='centermask', scale=(160, 160), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CenterMaskCocoDataset',
        data_root=data_root,
        ann_file='val/annotations.json',
        data_prefix=dict(img='val/images/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', _scope_='centermask', scale=(160, 160), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
    ),
)
test_dataloader = val_dataloader
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', _scope_='centermask', scale=(size, size), keep_ratio=True)
                for size in [128, 160, 192]
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackDetInputs')],
        ],
    ),
]
val_evaluator = dict(type='CenterMaskCocoMetric', metric=['bbox', 'segm'], ann_file=data_root + 'val/annotations.json')
test_evaluator = val_evaluator

max_iters = 900
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# A short memory of squared gradients: those of the first steps are many times larger and would slow all the others.
optim_wrapper = dict(
    type='NonFiniteSafeOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=2, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, eta_min=0),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=150, max_keep_ckpts=2))
randomness = dict(seed=0)
