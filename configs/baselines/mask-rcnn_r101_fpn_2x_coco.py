# Mask R-CNN on the code base of the paper recipe, maskrcnn-benchmark, with that code's own settings where MMDetection's
# parts take them. They don't take these: boxes' deltas and the levels of RoIs count w, not w + 1; boxes are clipped to
# [0, W]; anchors of ratios 1/2 and 2 aren't rounded before they are scaled; an anchor that is some object's best learns
# that object; 1000 proposals for each image in training, where the code takes 2000 for the two images of a GPU; masks
# have no channel for the background and are pasted by a bilinear sample.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_paper.py',
    '../_base_/schedules/paper_3x.py',
    '../_base_/default_runtime.py',
]

nms = dict(offset=1)
overlaps = dict(type='LegacyBboxOverlaps2D')
roi_align = dict(sampling_ratio=2, aligned=False)

model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        depth=101,
        norm_cfg=dict(requires_grad=False, eps=0),
        style='caffe',
        init_cfg=dict(type='StrictPretrained', checkpoint='open-mmlab://detectron2/resnet101_caffe'),
    ),
    rpn_head=dict(
        anchor_generator=dict(type='LegacyAnchorGenerator', center_offset=0.5),  # centred on pixels
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_align),
        bbox_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
        mask_roi_extractor=dict(roi_layer=roi_align),
    ),
    train_cfg=dict(
        # Anchors that leave the image learn nothing.
        rpn=dict(assigner=dict(min_pos_iou=0, iou_calculator=overlaps), allowed_border=0),
        rpn_proposal=dict(nms=nms),
        rcnn=dict(assigner=dict(match_low_quality=False, iou_calculator=overlaps)),
    ),
    test_cfg=dict(rpn=dict(nms=nms), rcnn=dict(nms=nms)),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))  # what the shared base code trains its Mask R-CNN with; FCOS halves it
train_cfg = dict(max_iters=180000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1)]
tta_model = None  # CenterMaskTTA is for CenterMask alone
