# Panoptic-CenterMask (second release): VoVNetV2-39, 80 classes of things, 53 of stuff.
_base_ = './centermask_star.py'
model = dict(
    type='PanopticCenterMask',
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[256, 512, 768, 1024], num_outs=6),
    semantic_head=dict(
        type='SemanticFPNHead',
        num_stuff_classes=53,
        in_channels=256,
        inner_channels=128,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, avg_non_ignore=True, loss_weight=0.5),
    ),
    panoptic_fusion=dict(type='PanopticFusion', score_thr=0.5, mask_overlap=0.5, stuff_area_limit=4096),
)
