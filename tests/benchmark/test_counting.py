"""Operator calls and host waits, counted as the shared tool counts them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import mmcv.ops
import numpy as np
import pytest
import torch

from centermask.benchmark.counting import count

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


def put(target, value):
    target[torch.tensor([True, False, True])] = value


# What is run, on its own tensor, and what the host waits for.
CASES = {
    'arithmetic': (lambda x: (x + 1).relu(), {}),
    'float': (lambda x: float(x[0]), {'_local_scalar_dense': 1}),
    'if': (lambda x: bool(x[0] > 0), {'_local_scalar_dense': 1}),
    'nonzero': (lambda x: (x > 0).nonzero(), {'nonzero': 1}),
    'mask': (lambda x: x[x > 1], {'index[mask]': 1}),
    'index': (lambda x: x[torch.tensor([0, 2])], {}),
    'fill through a mask': (lambda x: put(x, 0.0), {}),
    'values through a mask': (lambda x: put(x, torch.ones(2)), {'index_put_[mask]': 1}),
    'repeat': (lambda x: x.repeat_interleave(torch.tensor([1, 2, 3])), {'repeat_interleave': 1}),
    'repeat to a size': (lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), output_size=6), {}),
    'cpu and numpy': (lambda x: x.cpu().numpy(), {'cpu': 1}),
    'numpy twice': (lambda x: (x.numpy(), x.numpy()), {'numpy': 2}),
    'asarray': (lambda x: np.asarray(x), {'__array__': 1}),
    'list': (lambda x: x.tolist(), {'tolist': 1}),
    'nms': (lambda x: mmcv.ops.nms(BOXES, SCORES, 0.5), {'mmcv.nms': 1}),
    'empty split': (lambda x: x.split([1, 2]), {}),
}


@pytest.mark.parametrize('name', CASES)
def test_waits(name: str) -> None:
    run, expected = CASES[name]
    with count() as cost:
        run(torch.arange(3.0))
    assert dict(cost.by_operator) == expected
    assert cost.waits == sum(expected.values())


def test_an_operator_is_a_call_and_a_transfer_is_none() -> None:
    with count() as cost:
        (torch.ones(2) + 1).relu()
    assert cost.calls == 3
    with count() as cost:
        SCORES.relu()
        SCORES.numpy()
    assert cost.calls == 1


def test_counting_leaves_nothing_behind() -> None:
    before = torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__array__
    x = torch.ones(2)
    with count():
        x.cpu()
    assert (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.__array__) == before
    assert not hasattr(x, 'is_on_host')


@pytest.fixture(scope='module')
def shared_tool(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location('count_host_syncs', shared / 'tools/count_host_syncs.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('name', CASES)
def test_agrees_with_the_shared_tool(name: str, shared_tool: ModuleType) -> None:
    run, _ = CASES[name]
    with count() as ours:
        run(torch.arange(3.0))
    with shared_tool.count() as theirs:
        run(torch.arange(3.0))
    assert (ours.calls, ours.waits, ours.by_operator) == (theirs.calls, theirs.waits, theirs.by_operator)
