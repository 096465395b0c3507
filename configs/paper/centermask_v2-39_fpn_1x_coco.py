_base_ = [
    '../_base_/models/centermask.py',
    '../_base_/datasets/coco_paper_1x.py',
    '../_base_/schedules/paper_1x.py',
    '../_base_/default_runtime.py',
]
