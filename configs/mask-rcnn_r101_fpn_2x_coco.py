_base_ = [
    './_base_/models/mask_rcnn_r101.py',
    './_base_/datasets/coco_paper_ms.py',
    './_base_/schedules/paper_2x.py',
    './_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.02))  # what the shared base code trains its Mask R-CNN with; FCOS halves it
tta_model = None  # CenterMask's own
