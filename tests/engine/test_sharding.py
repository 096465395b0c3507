"""What a sharded training refuses; what it computes is in tests/test_several_processes.py."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from centermask.engine.nonfinite import NotFinite
from centermask.engine.sharding import ShardedRunner, _NotFiniteHook
from centermask.utils.errors import InputError

CONFIG = Path(__file__).resolve().parents[2] / 'configs/centermask-star_v2-99_fpn_3x_coco_fsdp.py'


def test_single_process(tools: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'shards the model over several processes: start it by tools/dist_train\.sh'):
        tools('train')([str(CONFIG), '--work-dir', str(tmp_path)])


def test_averaged_weights_are_refused() -> None:
    runner = object.__new__(ShardedRunner)  # which sets nothing up
    runner._hooks = []
    with pytest.raises(InputError, match='EMAHook is not for a sharded training, remove it'):
        runner.register_hooks({}, [dict(type='EMAHook')])


def test_steps_left_out_are_reported_without_a_file() -> None:
    lines: list[str] = []
    runner = SimpleNamespace(iter=6, rank=1, logger=SimpleNamespace(error=lines.append))
    hook = _NotFiniteHook()
    hook._batches.append(({}, {'loss': torch.tensor(float('nan')), 'loss_mask': torch.tensor(0.5)}))
    hook._report(runner, NotFinite(losses=True, here=True), ['a.jpg', 'b.jpg'])
    assert lines == [
        'Iteration 7, process 1: a loss is not finite and the step was left out (loss nan, loss_mask 0.5), '
        'images: a.jpg, b.jpg. '
        'A sharded training writes no file to compute it again.'
    ]
