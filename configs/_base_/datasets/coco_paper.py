# Paper recipe, 1x: the shorter side is 800 in training and testing, the longer at most 1333.
_base_ = './coco.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(type='FloorResize', scale=(1333, 800)),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='FloorResize', scale=(1333, 800)),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# MMDetection's keys, and by how much LegacyFlip's rule differs from its.
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
            [dict(type='FloorResize', scale=scale) for scale in [(1333, 640), (1333, 800), (1600, 960)]],
            [dict(type='LegacyFlip', prob=0.0), dict(type='LegacyFlip', prob=1.0)],
            [tta_pack],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
