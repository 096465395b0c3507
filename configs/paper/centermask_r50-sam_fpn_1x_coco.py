# Table 1: without mask scoring, so that masks rank by their box's score.
_base_ = './centermask_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_iou_head=None))
