_base_ = [
    './_base_/models/centermask_star_lite.py',
    './_base_/datasets/coco_star_lite.py',
    './_base_/schedules/star_4x.py',
    './_base_/default_runtime.py',
]
