"""Fixtures of the checkpoints' tests."""

import pytest


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that checkpoints log; MMEngine's logger keeps the stream of the first test."""
    lines: list[str] = []
    for module in ('loading', 'pretrained'):
        monkeypatch.setattr(f'centermask.checkpoints.{module}.print_log', lambda line, *_, **__: lines.append(line))
    return lines
