# Table 1: without the spatial attention module either.
_base_ = './centermask_r50-sam_fpn_1x_coco.py'
model = dict(roi_head=dict(mask_head=dict(spatial_attention=False)))
