_base_ = ['./mask_rcnn_r101.py', './resnext101.py']
model = dict(backbone={{_base_.resnext101}})
