# ImageNet weights of timm, trained with another mean and std: the loader folds all but the mean into the first conv.
_base_ = './centermask-star_v2-57_fpn_3x_coco.py'
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5]),
    backbone=dict(
        attention_blocks='last',
        init_cfg=dict(
            checkpoint='https://huggingface.co/timm/ese_vovnet57b.ra4_e3600_r256_in1k/resolve/main/pytorch_model.bin'
        ),
    ),
)
