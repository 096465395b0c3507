# ResNet-50 as Detectron has it, for either recipe: stride in the 1×1 convs, stem and first stage frozen.
resnet50 = dict(
    type='ResNet',
    depth=50,
    num_stages=4,
    out_indices=(1, 2, 3),
    frozen_stages=1,
    norm_eval=True,
    style='caffe',
    init_cfg=dict(type='StrictPretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'),
)
