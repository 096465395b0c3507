# The CenterMask* recipe, 270 000 iterations of 16 images. Norms have no weight decay.
optim_wrapper = dict(
    type='NonFiniteSafeOptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=270000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

warm_up = dict(type='LinearLR', by_epoch=False, start_factor=0.001, begin=0, end=1001)  # full rate at iteration 1000
param_scheduler = [warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[210000, 250000], gamma=0.1)]
