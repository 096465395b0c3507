# ShapeMask, trained as its release trains the R-101 of the paper. Make the priors first, 4 minutes for COCO:
#
#     python tools/make_shape_priors.py data/coco/annotations/instances_train2017.json data/coco/shape_priors.npy
#
# The release's file, kmeans_class_priors_91x20x32x32.npy, serves as well. The backbone starts from PyTorch's weights,
# so it pads as they were trained; the release's starts from TensorFlow's: there model.backbone.same_padding=True and
# model.neck.conv_cfg.type=Conv2dAdaptivePadding. Pictures are resized by OpenCV's rule, not TensorFlow's, and padded to
# multiples of 128 pixels, not to the square. Flips come after the crop. Mask targets are read from the resized masks.
_base_ = [
    '../_base_/datasets/coco_star.py',
    '../_base_/schedules/star_3x.py',
    '../_base_/default_runtime.py',
]

norm_cfg = dict(type='BN', eps=1e-4, momentum=0.003, requires_grad=True)
model = dict(
    type='ShapeMask',
    num_classes=80,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=128,
    ),
    backbone=dict(
        type='ShapeMaskResNet',
        depth=101,
        frozen_stages=1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='StrictPretrained', checkpoint='torchvision://resnet101'),
    ),
    neck=dict(
        type='ShapeMaskFPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        num_outs=5,
        norm_cfg=norm_cfg,
        conv_cfg=dict(type='Conv2d'),
    ),
    bbox_head=dict(
        type='ShapeMaskBoxHead',
        in_channels=256,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[1.0, 0.5, 2.0],  # height / width
            scale_major=False,  # which in MMDetection puts scales first
            center_offset=0.5,
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type='ShapeMaskBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.4),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.15, loss_weight=7.5),  # Huber's loss with δ = 0.15, × 50
    ),
    roi_head=dict(
        type='ShapeMaskRoIHead',
        num_priors=20,
        priors='data/coco/shape_priors.npy',
        class_agnostic=False,
        norm_cfg=norm_cfg,
    ),
    train_cfg=dict(
        assigner=dict(type='ShapeMaskAssigner'),
        num_masks=8,
        jitter=0.025,
        loss_weights=[0.1, 1.0, 1.0],  # of the prior, the coarse and the fine mask
    ),
    test_cfg=dict(
        score_thr=0.05,
        nms_pre=5000,  # of each class
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
        mask_thr_binary=0.5,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(
        type='RandomResize',
        scale=(1024, 1024),
        ratio_range=(0.8, 1.2),
        keep_ratio=True,
        resize_type='centermask.Resize',
        backend='cv2',
    ),
    dict(type='RandomCrop', crop_size=(1024, 1024), allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', _scope_='centermask', scale=(1024, 1024), keep_ratio=True, backend='cv2'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))  # on each of 8 GPUs
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# 45 000 iterations of 64 images. All that learns has weight decay.
optim_wrapper = dict(optimizer=dict(lr=0.08), paramwise_cfg=dict(_delete_=True))
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(max_iters=45000, val_interval=5000)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, start_factor=0.0067 / 0.08, begin=0, end=501),  # full rate at iteration 500
    dict(type='MultiStepLR', by_epoch=False, milestones=[30000, 40000], gamma=0.1),
]
tta_model = None  # CenterMaskTTA is for CenterMask alone
