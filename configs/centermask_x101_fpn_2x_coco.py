# The released model's warm-up is longer and lower than the recipe's.
_base_ = [
    './_base_/models/paper_x101.py',
    './_base_/datasets/coco_paper_ms.py',
    './_base_/schedules/paper_2x.py',
    './_base_/default_runtime.py',
]
warm_up = dict(factor=0.2, end=1001)
param_scheduler = [dict(_base_.warm_up, **warm_up), _base_.param_scheduler[1]]
