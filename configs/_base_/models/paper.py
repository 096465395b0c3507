# The paper recipe (first release): what it computes otherwise than star.py.
_base_ = './star.py'
model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717]),
    backbone=dict(
        norm_cfg=dict(eps=0),
        init_cfg=dict(checkpoint='https://dl.dropbox.com/s/8rhfcw53hc49k5x/vovnet39_ese_state_dict.pth'),
    ),
    bbox_head=dict(
        norm_on_bbox=False,
        sqrt_score=False,
        legacy_boxes=True,
        sync_avg_factor=False,
        loss_bbox=dict(enclosing_eps=1e-7),
    ),
    roi_head=dict(
        pasting='resized',
        sync_avg_factor=False,
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2, aligned=False), legacy_boxes=True),
        mask_head=dict(legacy_background=True),
        mask_iou_head=dict(legacy_background=True),
    ),
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type='LegacyBboxOverlaps2D')),
        sampler=dict(num=1000),  # more than there can be: every positive RoI is taken
    ),
    test_cfg=dict(score_thr=0.03, nms=dict(offset=1)),
)
