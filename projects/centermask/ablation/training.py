"""One training of the ablation, in a process of its own: python -m centermask.ablation.training CONFIG RESULT."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from torch import nn

from centermask.datasets.annotations import CocoAnnotations
from centermask.engine.configs import build_runner, load_config
from centermask.engine.cli import run
from centermask.utils.atomic_io import write_text_aside
from centermask.report.evaluation import evaluate, read_results


def train(config: Config, result: Path) -> None:
    """Train a model and write what it reached.

    Args:
        config: of the training, with its work folder, its seed and a digest of its settings.
        result: JSON file to write, with AP in percent, how many RoIs of the training went to each level, the time and
            the digest; or a checkpoint (.pth), to write the weights instead.
    """
    start = time.monotonic()
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.default_hooks.checkpoint = None
    prefix = Path(config.work_dir) / 'results'
    config.test_evaluator.update(format_only=True, outfile_prefix=str(prefix))
    runner = build_runner(config)
    start_parts(runner.model, config.randomness.seed)
    levels = count_levels(runner.model)
    runner.train()
    if result.suffix == '.pth':
        runner.save_checkpoint(str(result.parent), result.name, save_optimizer=False, save_param_scheduler=False)
        return
    runner.test()
    truth = CocoAnnotations(config.test_evaluator.ann_file)
    reached: dict[str, Any] = {}
    for kind, name in (('box', 'bbox'), ('mask', 'segm')):
        path = Path(f'{prefix}.{name}.json')
        if path.exists():
            found = evaluate(truth, read_results(path, truth, truth.getCatIds()), name, truth.getCatIds())
            reached[f'{kind} AP'] = 100 * found.figures['AP']
    reached |= dict(levels=dict(levels), seconds=round(time.monotonic() - start), settings=config.settings)
    write_text_aside(result, json.dumps(reached))


def start_parts(model: nn.Module, seed: int) -> None:
    """Give every part its first weights by the seed alone, so that parts which rows share start the same in each."""
    roi_head = getattr(model, 'roi_head', None)
    parts = [model.backbone, model.neck, model.bbox_head, *(roi_head.children() if roi_head is not None else ())]
    for part in parts:
        torch.manual_seed(seed)
        for layer in part.modules():  # also those that no init_cfg speaks of
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()
        for layer in part.modules():
            if isinstance(layer, ConvModule):
                layer.init_weights()
        part.init_weights()
    module: Any
    for module in model.modules():  # MMEngine shall not do it again
        if hasattr(module, '_is_init'):
            module._is_init = True


def count_levels(model: nn.Module) -> Counter[str]:
    """Count from now on how many RoIs of the training go to each level of the pyramid: {'P3': …}."""
    counts: Counter[str] = Counter()
    roi_head = getattr(model, 'roi_head', None)
    if roi_head is None:
        return counts
    extractor = roi_head.mask_roi_extractor
    counts.update({f'P{extractor.k_min + i}': 0 for i in range(extractor.num_inputs)})

    def count(module: Any, args: tuple) -> None:
        if module.training:
            levels = module.map_roi_levels(args[1].float(), args[2])
            counts.update(f'P{module.k_min + level}' for level in levels.tolist())

    extractor.register_forward_pre_hook(count)
    return counts


def main() -> None:
    config, result = sys.argv[1:]
    train(load_config(config), Path(result))


if __name__ == '__main__':
    sys.exit(run(main))
