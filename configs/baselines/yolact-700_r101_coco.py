_base_ = './yolact-550_r101_coco.py'
input_size = 700
lengths = [88, 44, 22, 11, 6]  # of the levels
model = dict(
    bbox_head=dict(
        anchor_generator=dict(
            base_sizes=[30, 61, 122, 244, 488],
            strides=[input_size / length for length in lengths],
            centers=[(input_size * 0.5 / length, input_size * 0.5 / length) for length in lengths],
        )
    ),
    mask_head=dict(max_masks_to_train=300),
)
train_pipeline, test_pipeline = (
    [dict(step, scale=(input_size, input_size)) if step['type'] == 'Resize' else step for step in pipeline]
    for pipeline in (_base_.train_pipeline, _base_.test_pipeline)
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
