_base_ = [
    './_base_/models/centermask_lite.py',
    './_base_/datasets/coco_paper_lite.py',
    './_base_/schedules/paper_4x.py',
    './_base_/default_runtime.py',
]
