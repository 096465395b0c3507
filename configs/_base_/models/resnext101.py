# ResNeXt-101 32×8d: stride in the 3×3 convs. Its ImageNet weights want pixels that are not divided by anything.
resnext101 = dict(
    type='ResNeXt',
    groups=32,
    base_width=8,
    style='pytorch',
    init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl'),
)
