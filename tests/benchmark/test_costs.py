"""Parameters, operations, calls and waits; the machine's name and peak."""

import pytest
import torch
from helpers.small_detectors import small_model
from torch import nn

from centermask.benchmark import machine
from centermask.benchmark.costs import count_costs, count_flops, count_parameters
from centermask.benchmark.machine import name_of_machine, peak


def test_parameters_without_those_of_norms() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.SyncBatchNorm(4))
    assert count_parameters(model) == (3 * 4 + 4) + 2 * 4


def test_operations_of_rois() -> None:
    """Those of the network are the same for any number of detections, and those of each detection are the same."""
    two, five, eight = (count_flops(small_model('star', detections)) for detections in (2, 5, 8))
    assert two < five
    assert five - two == eight - five


def test_pasting_of_each_mask() -> None:
    """Most of MMDetection's host waits come from it on a CPU."""
    few, many = (count_costs(small_model('Mask R-CNN', detections)) for detections in (2, 5))
    for kind in ('calls of pasting', 'waits of pasting'):
        assert few[kind] > 0
        assert many[kind] - few[kind] >= 3


def test_yolacts_mask_product() -> None:
    """Masks are a product of 32 prototypes, on the grid of P3 upsampled by 2, and coefficients of each detection."""
    few, many = (count_flops(small_model('YOLACT', detections)) for detections in (2, 5))
    height, width = 24, 32  # of P3 upsampled, for images of 96 × 128
    assert many - few == 3 * 2 * 32 * height * width


def test_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, 'MATRIX', 128)
    monkeypatch.setattr(machine, 'CONV', (16, 6, 8))
    threads = torch.get_num_threads()
    assert name_of_machine('cpu').endswith(f', {threads} thread' + 's' * (threads > 1))
    assert min(peak('cpu', dtype) for dtype in (torch.float32, torch.int8)) > 1e6
