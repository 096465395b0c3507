# MobileNetV2, for either recipe: both start from the same ImageNet weights.
mobilenetv2 = dict(
    type='MobileNetV2Features',
    norm_eval=True,
    init_cfg=dict(type='StrictPretrained', checkpoint='https://dl.dropbox.com/s/yduxbc13s3ip6qn/mobilenet_v2_detectron2.pth'),
)
