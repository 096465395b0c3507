_base_ = './paper.py'
train_cfg = dict(type='IterBasedTrainLoop', max_iters=180000, val_interval=10000)
param_scheduler = [_base_.warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1)]
