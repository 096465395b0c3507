_base_ = './paper_3x.py'
train_cfg = dict(max_iters=90000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[60000, 80000], gamma=0.1)]
