"""Importing the package replaces nothing of MMEngine's and MMDetection's."""

import subprocess
import sys
from pathlib import Path

from centermask.datasets.shapes import make_dataset

# In a process of its own, since this one has imported the package.
ENTRIES = """
import mmdet.registry
import mmdet.utils
import mmengine.registry
import torch
from mmengine.registry import Registry
from mmengine.runner.checkpoint import CheckpointLoader

mmdet.utils.register_all_modules()


def entries():
    found = {('scheme', prefix): loader for prefix, loader in CheckpointLoader._schemes.items()}
    found |= {('safe', str(entry)): entry for entry in torch.serialization.get_safe_globals()}
    for module in (mmengine.registry, mmdet.registry):
        for registry in filter(lambda value: isinstance(value, Registry), vars(module).values()):
            inherited = registry.parent.module_dict if registry.parent else {}  # which a child's entry shadows
            keys = {*inherited, *registry.module_dict}
            found |= {(registry.scope, registry.name, key): registry.get(key) for key in keys}
    return found


before = entries()
import centermask

after = entries()
assert len(before) > 700, len(before)
assert ('mmdet', 'model', 'CenterMask') in after.keys() - before.keys()
changed = [key for key, value in before.items() if after.get(key) is not value]
assert not changed, changed
"""

# MMDetection's Mask R-CNN, for two iterations.
TRAINING = """
import sys

from mmengine.hooks import CheckpointHook
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

data, work_dir = sys.argv[1:]
cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
cfg.merge_from_dict({
    'work_dir': work_dir,
    'model.backbone.init_cfg': None,
    'train_dataloader.batch_size': 1,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.dataset.data_root': data,
    'train_dataloader.dataset.ann_file': 'annotations.json',
    'train_dataloader.dataset.data_prefix.img': 'images/',
    'train_dataloader.dataset.metainfo': {'classes': ('circle', 'triangle', 'square', 'star', 'cross')},
    'train_dataloader.dataset.pipeline.2.scale': (128, 128),
    'train_cfg.max_epochs': 1,
    'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
})
runner = Runner.from_cfg(cfg)
runner.train()
assert runner.iter == 2
assert [type(hook) for hook in runner.hooks if isinstance(hook, CheckpointHook)] == [CheckpointHook]
assert type(runner.optim_wrapper) is OptimWrapper
"""


def test_other_detectors_keep_their_classes(tmp_path: Path) -> None:
    make_dataset(tmp_path / 'data', 2, seed=0)
    command = [sys.executable, '-c', ENTRIES + TRAINING, str(tmp_path / 'data'), str(tmp_path / 'run')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run/epoch_1.pth').is_file()
