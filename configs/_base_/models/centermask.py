# The paper recipe (first release): VoVNetV2-39, 80 classes.
model = dict(
    type='CenterMask',
    num_classes=80,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[102.9801, 115.9465, 122.7717],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='VoVNet',
        arch='39',
        norm_cfg=dict(type='BN', requires_grad=False, eps=0),
        init_cfg=dict(
            type='StrictPretrained', checkpoint='https://dl.dropbox.com/s/8rhfcw53hc49k5x/vovnet39_ese_state_dict.pth'
        ),
    ),
    neck=dict(
        type='FPN',
        in_channels=[512, 768, 1024],
        out_channels=256,
        num_outs=5,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(
        type='CenterMaskFCOSHead',
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        conv_bias=True,
        norm_on_bbox=False,
        centerness_on_reg=True,
        center_sampling=True,
        sqrt_score=False,
        legacy_boxes=True,
        sync_avg_factor=False,
        loss_bbox=dict(type='SmoothedGIoULoss', enclosing_eps=1e-7),
    ),
    roi_head=dict(
        type='CenterMaskRoIHead',
        pasting='resized',
        sync_avg_factor=False,
        mask_roi_extractor=dict(
            type='ScaleAdaptiveRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2, aligned=False),
            out_channels=256,
            featmap_strides=[8, 16, 32],
            legacy_boxes=True,
        ),
        mask_head=dict(type='SAGMaskHead', num_convs=4, in_channels=256, conv_out_channels=256, legacy_background=True),
        mask_iou_head=dict(
            type='MaskScoringHead', num_convs=4, in_channels=256, conv_out_channels=256, legacy_background=True
        ),
    ),
    train_cfg=dict(
        max_per_img=100,
        mask_size=28,
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.5,
            match_low_quality=False,
            iou_calculator=dict(type='LegacyBboxOverlaps2D'),
        ),
        # 1000 is more than there can be: every positive RoI is taken.
        sampler=dict(type='RandomSampler', num=1000, pos_fraction=1.0, neg_pos_ub=0, add_gt_as_proposals=True),
    ),
    test_cfg=dict(
        score_thr=0.03,
        nms_pre=1000,
        nms=dict(type='nms', iou_threshold=0.6, offset=1),
        max_per_img=50,
        mask_thr_binary=0.5,
    ),
)
