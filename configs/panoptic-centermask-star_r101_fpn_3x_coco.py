_base_ = './panoptic-centermask-star_r50_fpn_3x_coco.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://detectron2/resnet101_caffe')))
