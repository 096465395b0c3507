_base_ = [
    './_base_/models/paper.py',
    './_base_/datasets/coco_paper_ms.py',
    './_base_/schedules/paper_2x.py',
    './_base_/default_runtime.py',
]
