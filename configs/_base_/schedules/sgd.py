# Both recipes train with SGD on 16 images; a file of this folder for each schedule adds its length and steps.
optim_wrapper = dict(type='NonFiniteSafeOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=16)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
