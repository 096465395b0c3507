_base_ = './centermask-star_v2-57_fpn_3x_coco.py'
model = dict(backbone=dict(dcn_stages=(False, True, True, True)))
