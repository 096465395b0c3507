# The paper recipe, 270 000 iterations of 16 images. Biases have twice the learning rate and no weight decay.
# custom_keys selects them by name, because bias_lr_mult leaves out the biases of norms.
optim_wrapper = dict(
    type='NonFiniteSafeOptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(custom_keys={'.bias': dict(lr_mult=2.0, decay_mult=0.0)}),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=270000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

warm_up = dict(type='ConstantLR', by_epoch=False, factor=1 / 3, begin=0, end=501)  # full rate at iteration 500
param_scheduler = [warm_up, dict(type='MultiStepLR', by_epoch=False, milestones=[210000, 250000], gamma=0.1)]
