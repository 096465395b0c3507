_base_ = [
    './_base_/models/paper.py',
    './_base_/models/lite.py',
    './_base_/datasets/coco_paper_lite.py',
    './_base_/schedules/paper_4x.py',
    './_base_/default_runtime.py',
]
model = {{_base_.lite_model}}
