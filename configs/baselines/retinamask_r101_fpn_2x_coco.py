# RetinaMask: RetinaNet's boxes in the place of FCOS's, and a mask branch by Eq. 1 without attention or mask scoring.
# Its release's P6 comes from P5, as the recipe's. MMDetection's parts differ from that code: deltas count w, not w + 1;
# boxes are clipped to [0, W]; anchors of ratios 1/2 and 2 aren't rounded before they are scaled; an anchor that is some
# object's best learns that object.
_base_ = '../centermask_r101_fpn_2x_coco.py'
model = dict(
    bbox_head=dict(
        _delete_=True,
        type='RetinaMaskBoxHead',
        in_channels=256,
        anchor_generator=dict(
            type='LegacyAnchorGenerator',
            center_offset=0.5,  # centred on pixels
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type='SelfAdjustingSmoothL1Loss', beta=0.11, momentum=0.9),
    ),
    roi_head=dict(
        mask_roi_extractor=dict(assignment='fpn'),
        mask_head=dict(spatial_attention=False),
        mask_iou_head=None,
    ),
    train_cfg=dict(
        anchors=dict(
            # min_pos_iou=0: the best anchor of each object is always positive.
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                iou_calculator=dict(type='LegacyBboxOverlaps2D'),
            ),
            allowed_border=-1,
            pos_weight=-1,
        ),
    ),
    test_cfg=dict(score_thr=0.05, nms=dict(iou_threshold=0.4), min_bbox_size=0),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='LegacyBoxes'),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, 640), (1333, 800), (1333, 1000)],
        resize_type='centermask.Resize',
        rounding='down',
    ),
    dict(type='LegacyFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

warm_up = dict(type='LinearLR', by_epoch=False, start_factor=1 / 3, begin=0, end=501)  # full rate at iteration 500
param_scheduler = [warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1)]
tta_model = None  # CenterMaskTTA merges FCOS's boxes
