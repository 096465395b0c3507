_base_ = [
    './_base_/models/paper_v2-19.py',
    './_base_/datasets/coco_paper.py',
    './_base_/schedules/paper_1x.py',
    './_base_/default_runtime.py',
]
