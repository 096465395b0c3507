# Star recipe: no decay of norms, and a linear warm-up that is complete at iteration 1000.
_base_ = './sgd.py'
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
warm_up = dict(type='LinearLR', by_epoch=False, start_factor=0.001, begin=0, end=1001)
