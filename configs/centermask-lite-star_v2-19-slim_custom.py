# Own data in COCO format: set data_root, and the files below it where yours have other names.
# The classes come from the training annotations; every head and every data set follows them.
_base_ = './centermask-lite-star_v2-19-slim_fpn_4x_coco.py'

from centermask.datasets import read_classes

data_root = 'data/custom/'
train_file, train_images = 'annotations/train.json', 'train/'
val_file, val_images = 'annotations/val.json', 'val/'
classes = read_classes(data_root + train_file)

model = dict(num_classes=len(classes))
metainfo = dict(classes=classes)
train_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file=train_file, data_prefix=dict(img=train_images), metainfo=metainfo)
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file=val_file, data_prefix=dict(img=val_images), metainfo=metainfo)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_file)
test_evaluator = val_evaluator

# COCO's 4x is 360 000 iterations: a few thousand suit a small data set. 16 images a step; fewer by --auto-scale-lr.
train_cfg = dict(max_iters=6000, val_interval=1000)
param_scheduler = [
    _base_.warm_up,
    dict(type='MultiStepLR', by_epoch=False, milestones=[4500, 5500], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=1000))
