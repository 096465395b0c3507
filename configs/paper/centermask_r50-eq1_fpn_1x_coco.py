# Table 1: RoIs go to levels by Eq. 1, as in Mask R-CNN, not by Eq. 2.
_base_ = './centermask_r50-eq2_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_roi_extractor=dict(assignment='fpn')))
