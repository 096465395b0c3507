# ImageNet weights of timm, trained with another mean and std: the loader folds the difference into the first conv.
_base_ = './centermask-lite-star_v2-39_fpn_4x_coco.py'
model = dict(
    backbone=dict(
        arch='19-dw',
        init_cfg=dict(checkpoint='https://huggingface.co/timm/ese_vovnet19b_dw.ra_in1k/resolve/main/pytorch_model.bin'),
    )
)
