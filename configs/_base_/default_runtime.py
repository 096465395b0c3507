default_scope = 'mmdet'
custom_imports = dict(imports=['centermask'])
runner_type = 'CenterMaskRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=5000, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='FolderVisualizationHook'),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
tta_model = dict(type='CenterMaskTTA')

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='CenterMaskVisualizer', vis_backends=vis_backends, name='visualizer')

load_from = None
resume = False
