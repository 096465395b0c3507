# Table 1: FCOS alone.
_base_ = './centermask_r50_fpn_1x_coco.py'
model = dict(roi_head=None)
val_evaluator = dict(metric=['bbox'])
test_evaluator = val_evaluator

# Without masks: programs such as SAHI take a config that loads masks for one that predicts them.
train_pipeline = [
    dict(step, with_mask=False) if step['type'] == 'LoadAnnotations' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
