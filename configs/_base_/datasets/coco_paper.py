# COCO as MMDetection has it, 2 images on each of 8 GPUs, in the paper recipe's sizes: the shorter side is any length
# from 640 to 800 in training, 800 in testing; the longer side is at most 1333.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], resize_type='centermask.Resize', rounding='down'),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', _scope_='centermask', scale=(1333, 800), keep_ratio=True, rounding='down'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# MMDetection's keys and flip_offset: LegacyFlip moves boxes by one pixel less than RandomFlip.
tta_pack = dict(
    type='PackDetInputs',
    meta_keys=(
        'img_id',
        'img_path',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
        'flip_offset',
    ),
)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', _scope_='centermask', scale=scale, keep_ratio=True, rounding='down')
                for scale in [(1333, 640), (1333, 800), (1600, 960)]
            ],
            [dict(type='LegacyFlip', prob=0.0), dict(type='LegacyFlip', prob=1.0)],
            [tta_pack],
        ],
    ),
]

data_root = 'data/coco/'
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CenterMaskCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CenterMaskCocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CenterMaskCocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
