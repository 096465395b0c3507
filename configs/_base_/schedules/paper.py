# Paper recipe: biases learn at twice the rate without decay, and a third of the rate until iteration 500.
_base_ = './sgd.py'
# By name, since bias_lr_mult leaves out the biases of norms.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.bias': dict(lr_mult=2.0, decay_mult=0.0)}))
warm_up = dict(type='ConstantLR', by_epoch=False, factor=1 / 3, begin=0, end=501)
