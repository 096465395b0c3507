"""Functions that run in several processes over gloo, started once for all jobs, since importing takes seconds.

They need a module of their own: new processes can't import a test file, which pytest imports by another name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import RUNNERS, DefaultScope
from torch import Tensor, distributed, multiprocessing

from helpers.small_model import Object, batch, noise_image, sample, small_model, square

Job = tuple[int, Callable, tuple]
"""Number of processes, the function that each calls, and its arguments."""


def in_processes(jobs: Sequence[Job], folder: Path, seconds: int = 240) -> list[list[Any]]:
    """Run jobs one after the other and return what each process's call of each job returned.

    Raises:
        TimeoutError: the jobs hang.
    """
    count = max(processes for processes, _, _ in jobs)
    context = multiprocessing.start_processes(_work, (jobs, str(folder)), nprocs=count, join=False)
    assert context is not None
    try:
        # Returns early, without a result, when the first process is through.
        for _ in range(count + 1):
            if context.join(seconds):
                break
        else:
            raise TimeoutError('processes hang')
    finally:
        for process in context.processes:
            process.kill()
    return [
        [torch.load(folder / f'{number}-{rank}.pt') for rank in range(processes)]
        for number, (processes, _, _) in enumerate(jobs)
    ]


def _work(rank: int, jobs: Sequence[Job], folder: str) -> None:
    torch.set_num_threads(1)
    DefaultScope.get_instance('tests', scope_name='mmdet')
    for number, (processes, function, arguments) in enumerate(jobs):
        if rank >= processes:
            continue
        os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(processes)}
        os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '0'}  # processes meet in a file
        distributed.init_process_group(
            'gloo', f'file://{folder}/meeting-{number}', timedelta(seconds=60), processes, rank
        )
        torch.save(function(*arguments), f'{folder}/{number}-{rank}.pt')
        distributed.barrier()
        distributed.destroy_process_group()


MANY = [square(0, 4, 6, 50, 44), square(2, 30, 10, 60, 60), square(1, 60, 20, 94, 52)]
ONE = [square(1, 20, 8, 70, 56)]
# An object between the locations of P3, at 4, 12, …: FCOS has no positive, the mask branch has.
HIDDEN = [square(1, 5, 5, 11, 11)]
CASES: dict[str, tuple[list[Object], list[Object]]] = {
    'both with objects': (MANY, ONE),
    'one without objects': (MANY, []),
    'one without a positive': (HIDDEN, ONE),
    'neither with a positive': (HIDDEN, HIDDEN),
    'neither with objects': ([], []),
}
STAR, PAPER = 'star', 'paper'


def gradients(recipe: str, images: dict[int, list[Object]], distributed: bool = False) -> dict[str, Tensor]:
    """Return the gradient of each parameter for images of these seeds and objects."""
    # Pixels of a size and a threshold that make gradients and detections of a trained network's size.
    model = small_model(recipe, {'data_preprocessor.std': [64.0] * 3, 'test_cfg.score_thr': 0.001}).train()
    torch.nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 0.5)  # masks that cover something
    inputs, samples = batch(
        model, [noise_image(64, 96, i) for i in images], [sample(64, 96, o) for o in images.values()]
    )
    network = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False) if distributed else model
    loss, _ = model.parse_losses(network(inputs, samples, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def own_gradients(recipe: str, case: str) -> dict[str, Tensor]:
    return gradients(recipe, {get_rank(): CASES[case][get_rank()]}, distributed=True)


def results(config: str, checkpoint: str, launcher: str) -> tuple[dict[str, float], int]:
    """Test a checkpoint; return the AP and the number of images that this process has seen."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'launcher': launcher, 'load_from': checkpoint, 'log_level': 'ERROR'})
    cfg.work_dir = str(Path(config).parent / f'{launcher}-{get_world_size()}')
    runner = RUNNERS.build(cfg)
    return runner.test(), len(runner.test_loop.dataloader)
