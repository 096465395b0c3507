# Table 1: FCOS alone.
_base_ = './centermask_r50_fpn_1x_coco.py'
model = dict(roi_head=None)
val_evaluator = dict(metric=['bbox'])
test_evaluator = val_evaluator
