# COCO's objects as in coco_star.py, and semantic PNGs, which tools/make_semantic_masks.py makes from the panoptic ones.
_base_ = './coco_star.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True, poly2mask=False),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(
    dataset=dict(
        type='CenterMaskPanopticDataset',
        data_prefix=dict(seg='panoptic_stuff_train2017/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(dataset=dict(type='CenterMaskPanopticDataset'))
test_dataloader = val_dataloader
panoptic_truth = dict(
    ann_file=_base_.data_root + 'annotations/panoptic_val2017.json',
    seg_prefix=_base_.data_root + 'annotations/panoptic_val2017/',
)
val_evaluator = [
    _base_.val_evaluator,
    dict(type='PanopticQuality', **panoptic_truth),
    dict(type='SemanticIoU', **panoptic_truth),
]
test_evaluator = val_evaluator
