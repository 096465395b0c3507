# Table 2: masks are pooled from P3 and P4; k_max of Eq. 2 is P4.
_base_ = './centermask_r50_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_roi_extractor=dict(featmap_strides=[8, 16])))
