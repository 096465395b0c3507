# V2-99 with weights, gradients and momentum split over the processes (MMEngine's FSDP), for GPUs of little memory.
# Several processes only: tools/dist_train.sh or tools/slurm_train.sh.
_base_ = './centermask-star_v2-99_fpn_3x_coco.py'
runner_type = 'ShardedRunner'
strategy = dict(type='ShardedStrategy')
