# The demo's model with a semantic head, on shapes whose ground is grass, water or brick;
# docs/baselines_and_panoptic.md has the commands that make them.
_base_ = './centermask-lite-star_v2-19-slim_shapes.py'
tta_model = None  # CenterMaskTTA makes no panoptic maps

data_root = 'data/panoptic_shapes/'
model = dict(
    type='PanopticCenterMask',
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[112, 256, 384, 512], num_outs=6),
    semantic_head=dict(
        type='SemanticFPNHead',
        num_stuff_classes=3,
        in_channels=128,
        inner_channels=64,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, avg_non_ignore=True, loss_weight=0.5),
    ),
    # As large a part of an image as COCO's 4096 pixels.
    panoptic_fusion=dict(type='PanopticFusion', score_thr=0.5, mask_overlap=0.5, stuff_area_limit=340),
)
data = dict(
    type='CenterMaskPanopticDataset',
    data_root=data_root,
    metainfo=dict(stuff_classes=('grass', 'water', 'brick')),
)
train_pipeline = [*_base_.train_dataloader.dataset.pipeline]
train_pipeline[1] = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True, poly2mask=False)
train_dataloader = dict(dataset=dict(**data, data_prefix=dict(seg='train/semantic/'), pipeline=train_pipeline))
val_dataloader = dict(dataset=data)
test_dataloader = val_dataloader
panoptic_truth = dict(ann_file=data_root + 'val/panoptic.json', seg_prefix=data_root + 'val/panoptic/')
val_evaluator = [
    dict(type='CenterMaskCocoMetric', metric=['bbox', 'segm'], ann_file=data_root + 'val/annotations.json'),
    dict(type='PanopticQuality', **panoptic_truth),
    dict(type='SemanticIoU', **panoptic_truth),
]
test_evaluator = val_evaluator
