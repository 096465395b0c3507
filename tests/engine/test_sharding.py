"""What a sharded training refuses; what it computes is in tests/test_several_processes.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from centermask.engine.sharding import ShardedStrategy
from centermask.errors import InputError

CONFIG = Path(__file__).resolve().parents[2] / 'configs/centermask-star_v2-99_fpn_3x_coco_fsdp.py'


def test_single_process(tools: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'shards the model over several processes: start it by tools/dist_train\.sh'):
        tools('train')([str(CONFIG), '--work-dir', str(tmp_path)])


def test_clipping_is_refused() -> None:
    strategy = object.__new__(ShardedStrategy)  # which sets nothing up
    with pytest.raises(InputError, match=r'optim_wrapper\.clip_grad is not for a sharded training: set it to None'):
        strategy.build_optim_wrapper(dict(clip_grad=dict(max_norm=1)))
