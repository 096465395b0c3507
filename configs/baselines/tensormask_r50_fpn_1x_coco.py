# TensorMask as its release in Detectron2 has it, with that code's rules by boxes, where the paper has rules by masks.
_base_ = [
    '../_base_/datasets/coco_star.py',
    '../_base_/schedules/star_3x.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='TensorMask',
    num_classes=80,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        init_cfg=dict(type='StrictPretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'),
    ),
    neck=dict(type='AveragingFPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=6),
    bbox_head=dict(
        type='TensorMaskBoxHead',
        in_channels=256,
        # Windows have 44 and 60 pixels on P2, and twice as many on each later level.
        anchor_generator=dict(
            type='AnchorGenerator', scales=[11, 15], ratios=[1.0], strides=[4, 8, 16, 32, 64, 128], center_offset=0.0
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[1 / 1.5, 1 / 1.5, 1 / 0.75, 1 / 0.75]),
        loss_cls=dict(type='FocalLossStar', gamma=3.0, alpha=0.3),
        loss_bbox=dict(type='L1Loss'),
    ),
    mask_head=dict(type='BipyramidMaskHead', in_channels=256, mask_sizes=(11, 15)),
    train_cfg=dict(assigner=dict(type='WindowAssigner')),
    test_cfg=dict(
        score_thr=0.05,
        nms_pre=6000,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
        mask_thr_binary=0.5,
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='Resize', _scope_='centermask', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_iters=90000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[60000, 80000], gamma=0.1)]
tta_model = None  # CenterMaskTTA is for CenterMask alone
