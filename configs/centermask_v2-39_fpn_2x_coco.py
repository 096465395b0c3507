_base_ = './centermask_v2-39_fpn_3x_coco.py'
train_cfg = dict(max_iters=180000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1)]
