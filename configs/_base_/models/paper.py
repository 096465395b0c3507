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
        plus_one=True,
        average_normalizers=False,
        loss_bbox=dict(enclosing_eps=1e-7),
    ),
    roi_head=dict(
        pasting='rounded',
        average_normalizers=False,
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2, aligned=False), plus_one=True),
        mask_head=dict(background_channel=True),
        mask_iou_head=dict(background_channel=True),
    ),
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type='InclusiveOverlaps2D')),
        sampler=dict(num=1000),  # more than there can be: every positive RoI is taken
    ),
    test_cfg=dict(score_thr=0.03, nms=dict(offset=1)),
)
