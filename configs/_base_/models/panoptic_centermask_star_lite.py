# Panoptic-CenterMask with the widths of CenterMask-Lite; no release has it.
_base_ = './panoptic_centermask_star.py'
model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128, stacked_convs=2),
    roi_head=dict(
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(num_convs=2, in_channels=128, conv_out_channels=128),
        mask_iou_head=dict(num_convs=2, in_channels=128, conv_out_channels=128),
    ),
    semantic_head=dict(in_channels=128, inner_channels=64),
)
