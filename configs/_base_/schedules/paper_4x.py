_base_ = './paper_3x.py'
train_cfg = dict(max_iters=360000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[300000, 340000], gamma=0.1)]
