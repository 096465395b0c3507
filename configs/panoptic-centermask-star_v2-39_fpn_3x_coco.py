_base_ = [
    './_base_/models/panoptic_centermask_star.py',
    './_base_/datasets/coco_star_panoptic.py',
    './_base_/schedules/star_3x.py',
    './_base_/default_runtime.py',
]
tta_model = None  # CenterMaskTTA makes no panoptic maps
