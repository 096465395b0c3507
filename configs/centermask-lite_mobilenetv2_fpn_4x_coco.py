# The released model was trained without mask scoring: masks rank by their box's score.
_base_ = [
    './_base_/models/paper_mobilenetv2.py',
    './_base_/models/lite.py',
    './_base_/datasets/coco_paper_lite.py',
    './_base_/schedules/paper_4x.py',
    './_base_/default_runtime.py',
]
model = dict(_base_.lite_model, roi_head=dict(_base_.lite_model.roi_head, mask_iou_head=None))
