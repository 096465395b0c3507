# Own panoptic data in COCO's format: set data_root, and the files below it where yours have other names.
# The classes come from the panoptic annotations: things, which the objects' files have by the same names, and stuff.
# tools/make_semantic_masks.py makes train_semantic from train_panoptic.
_base_ = [
    './_base_/models/panoptic_centermask_star_lite.py',
    './_base_/datasets/coco_star_panoptic_lite.py',
    './_base_/schedules/star_4x.py',
    './_base_/default_runtime.py',
]
tta_model = None  # CenterMaskTTA makes no panoptic maps

from centermask.datasets import read_panoptic_classes

data_root = 'data/custom_panoptic/'
train_file, train_images = 'annotations/train.json', 'train/'
train_panoptic, train_semantic = 'annotations/panoptic_train.json', 'semantic_train/'
val_file, val_images = 'annotations/val.json', 'val/'
val_panoptic, val_pngs = 'annotations/panoptic_val.json', 'annotations/panoptic_val/'
classes, stuff_classes = read_panoptic_classes(data_root + train_panoptic)

model = dict(
    num_classes=len(classes),
    semantic_head=dict(num_stuff_classes=len(stuff_classes)),
    backbone=dict(
        arch='19-slim',
        init_cfg=dict(checkpoint='https://dl.dropbox.com/s/8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth'),
    ),
    neck=dict(in_channels=[112, 256, 384, 512]),
)
metainfo = dict(classes=classes, stuff_classes=stuff_classes)
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file=train_file,
        data_prefix=dict(img=train_images, seg=train_semantic),
        metainfo=metainfo,
    )
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file=val_file, data_prefix=dict(img=val_images), metainfo=metainfo)
)
test_dataloader = val_dataloader
panoptic_truth = dict(ann_file=data_root + val_panoptic, seg_prefix=data_root + val_pngs)
val_evaluator = [
    dict(type='CenterMaskCocoMetric', ann_file=data_root + val_file, metric=['bbox', 'segm']),
    dict(type='PanopticQuality', **panoptic_truth),
    dict(type='SemanticIoU', **panoptic_truth),
]
test_evaluator = val_evaluator

# COCO's 4x is 360 000 iterations: a few thousand suit a small data set. 16 images a step; fewer by --auto-scale-lr.
train_cfg = dict(max_iters=6000, val_interval=1000)
param_scheduler = [
    _base_.warm_up,
    dict(type='MultiStepLR', by_epoch=False, milestones=[4500, 5500], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=1000))
