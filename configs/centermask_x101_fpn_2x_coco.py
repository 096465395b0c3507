# The released model's warm-up is longer and lower than the recipe's.
_base_ = './centermask_x101_fpn_3x_coco.py'
train_cfg = dict(max_iters=180000)
warm_up = dict(factor=0.2, end=1001)
param_scheduler = [
    dict(_base_.warm_up, **warm_up),
    dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1),
]
