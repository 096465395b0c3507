# The paper's claims in small (tools/ablation.py): the demo's model and shapes at 320 pixels, with objects from
# 16 pixels to the whole picture.
_base_ = './centermask-lite-star_v2-19-slim_shapes.py'

data_root = 'data/ablation/'
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
            dict(type='RoundResize', scale=(320, 320)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RoundResize', scale=(320, 320)),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val/annotations.json')
test_evaluator = val_evaluator

max_iters = 360
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(type='MixedPrecisionOptimWrapper')  # bfloat16 makes 1.6 times the iterations in the same time
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=max_iters, eta_min=0),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
