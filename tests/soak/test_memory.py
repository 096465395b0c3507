"""What is made of a training's memory over its iterations."""

from pathlib import Path

from soak.memory import growth


def test_growth(tmp_path: Path) -> None:
    path = tmp_path / 'log'
    path.write_text(''.join(f'{i} {500 + i} 100\n' for i in range(10, 1001, 10)))
    assert growth(path) == (755, 1455, 100, 100)
