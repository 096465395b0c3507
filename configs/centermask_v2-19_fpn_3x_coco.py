# The released model was trained without mask scoring: masks rank by their box's score.
_base_ = [
    './_base_/models/paper_v2-19.py',
    './_base_/datasets/coco_paper_ms.py',
    './_base_/schedules/paper_3x.py',
    './_base_/default_runtime.py',
]
model = dict(roi_head=dict(mask_iou_head=None))
