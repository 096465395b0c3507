"""Operations, calls, waits and memory of a run."""

import pytest
import torch
from helpers.small_contestants import small_config
from torch import nn

from centermask.benchmark import machine
from centermask.benchmark.costs import costs_of, flops_of, pasting_of, peak_memory
from centermask.benchmark.machine import name_of_machine, peak
from centermask.tables.measure import count_flops


def test_costs() -> None:
    network = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 50))
    image = torch.ones(10, 100)

    def run() -> float:
        with torch.no_grad():
            return network(image).sum().item()

    costs = costs_of(run, 'cpu')
    assert costs.counted.waits == 1
    assert costs.counted.calls >= 5
    # The outputs of the first two layers are there together.
    assert costs.memory == 2 * 10 * 200 * 4


def test_pasting_of_each_mask(calibrated) -> None:
    """MMDetection's waits mostly come from it on a CPU."""
    few, many = (pasting_of(calibrated('Mask R-CNN', detections)[0]) for detections in (2, 5))
    assert few > (0, 0)
    assert many[0] - few[0] >= 3
    assert many[1] - few[1] >= 3


def test_operations_are_counted_as_layers_are_written(calibrated) -> None:
    """Also of a model that tests with fused convs, which stays as it is."""
    contestant, _ = calibrated('star', 5)
    contestant.run(0)
    flops = flops_of(contestant)
    assert contestant.model.fuse_conv_bn
    assert flops == count_flops(small_config('star', 5))


def test_memory_that_is_freed_counts_once() -> None:
    def run() -> None:
        for _ in range(3):
            torch.ones(1000)

    assert peak_memory(run, 'cpu') == 4000


def test_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'MATRIX', 128)
    monkeypatch.setattr(machine, 'CONV', (16, 6, 8))
    threads = torch.get_num_threads()
    assert name_of_machine('cpu').endswith(f', {threads} thread' + 's' * (threads > 1))
    assert min(peak('cpu', dtype) for dtype in (torch.float32, torch.int8)) > 1e6
