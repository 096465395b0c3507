# The recipe of `make demo`: all objects of another image are pasted into each image, so that a step learns from more of
# them. Two RoIs an image are enough and leave time for more steps.
_base_ = './centermask-lite-star_v2-19-slim_shapes.py'

model = dict(train_cfg=dict(sampler=dict(num=2)), test_cfg=dict(nms_pre=200))
shapes = dict(
    _base_.train_dataloader.dataset,
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', _scope_='centermask', scale=(160, 160), keep_ratio=True),
        dict(type='Pad', pad_to_square=True),  # CopyPaste takes images of one size
    ],
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=shapes,
        pipeline=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='CopyPaste', selected=False, bbox_occluded_thr=8, mask_occluded_thr=80),
            dict(type='PackDetInputs'),
        ],
    )
)

max_iters = 1150
train_cfg = dict(max_iters=max_iters, val_interval=575)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_iters)]
default_hooks = dict(checkpoint=dict(interval=230))
