"""One model alone, for the tables."""

import pytest
from helpers.small_contestants import small_config
from torch import nn

from centermask.benchmark.comparison import Wishes, latency


def test_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many detections as asked for reach the mask branch each time, and the config stays as it is."""
    monkeypatch.setattr(Wishes, 'detections', 7)
    monkeypatch.setattr(Wishes, 'rounds', 2)
    config = small_config('star', 50)
    before = config.to_dict()
    calls = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, arguments, output: calls.append(len(output)) if type(module).__name__ == 'SAGMaskHead' else None
    )
    try:
        ms, size = latency(config, 'cpu')
    finally:
        hook.remove()
    assert ms > 0
    assert size == (96, 128)
    assert calls == [7, 7, 7]
    assert config.to_dict() == before
