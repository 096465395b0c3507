# The released model was trained without mask scoring: the mask score is the box score.
_base_ = './centermask_v2-39_fpn_3x_coco.py'
model = dict(
    backbone=dict(
        arch='19', init_cfg=dict(checkpoint='https://dl.dropbox.com/s/f5db5r6jjia2wj8/vovnet19-ese-statedict.pth')
    ),
    roi_head=dict(mask_iou_head=None),
)
