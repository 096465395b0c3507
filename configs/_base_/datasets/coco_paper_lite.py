# Lite sizes of the paper recipe: the shorter side is any length from 580 to 600 in training, 600 in testing; the
# longer side is at most 1000.
_base_ = './coco_paper.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(type='RandomResize', scale=[(1000, 580), (1000, 600)], resize_type='centermask.Resize', rounding='down'),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', _scope_='centermask', scale=(1000, 600), keep_ratio=True, rounding='down'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', _scope_='centermask', scale=scale, keep_ratio=True, rounding='down')
                for scale in [(1000, 480), (1000, 600), (1200, 720)]
            ],
            [dict(type='LegacyFlip', prob=0.0), dict(type='LegacyFlip', prob=1.0)],
            [_base_.tta_pack],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
