# ImageNet weights of timm, trained with another mean and std: the loader folds the difference into the first conv.
_base_ = './centermask-star_v2-39_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        attention_blocks='last',
        init_cfg=dict(checkpoint='https://huggingface.co/timm/ese_vovnet39b.ra_in1k/resolve/main/pytorch_model.bin'),
    )
)
