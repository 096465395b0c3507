"""tools/figures.py"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from centermask.engine.cli import run

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture
def figures(tools: Callable, capsys: pytest.CaptureFixture) -> Callable:
    """Run the command and return its exit code, output and errors."""

    def call(*args: str | Path) -> tuple[int, str, str]:
        try:
            code = run(lambda: tools('figures')(list(map(str, args))))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_figure_1(figures: Callable, tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'fig1.png'
    code, output, _ = figures('1', '--out', out)
    assert code == 0
    assert str(out) in output
    assert cv2.imread(str(out)).std() > 5


def test_figure_4(figures: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    """Three square images of one data set in two rows of two; what is drawn changes them."""
    images = sorted((tiny_config.parent / 'shapes/val/images').iterdir())
    sheets = []
    for threshold in (0.0, 1.0):
        out = tmp_path / f'{threshold}.png'
        model = (tiny_config, tiny_run / 'iter_2.pth', images[0].parent)
        code, output, errors = figures('4', *model, '--columns', 2, '--score-thr', threshold, '--out', out)
        assert code == 0, errors
        assert f'above {threshold} on 3 images' in output
        sheets.append(cv2.imread(str(out)).astype(int))
    drawn, plain = sheets
    assert plain.shape == (2 * 640 + 8, 2 * 640 + 8, 3)
    assert (plain[648:, 648:] == 255).all()
    original = cv2.resize(cv2.imread(str(images[2])), (640, 640), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(plain[648:, :640], original)
    assert drawn.shape[0] == plain.shape[0] and drawn.shape[1] >= plain.shape[1]
    assert (drawn[648:, :640] != plain[648:, :640]).mean() > 0.001


def test_bad_input(figures: Callable, tiny_config: Path, tiny_run: Path, tmp_path: Path) -> None:
    config, checkpoint, image = tiny_config, tiny_run / 'iter_2.pth', tmp_path / 'image.jpg'
    image.write_text('no image')
    (tmp_path / 'file').touch()
    for args, message in (
        (['1', '--benchmark', tmp_path / 'nosuch.json'], "nosuch.json can't be read"),
        (['1', '--out', tmp_path / 'fig1.txt'], 'must end in .png or .svg or .pdf'),
        (['1', '--out', tmp_path / 'file' / 'fig1.png'], "can't be written to"),
        (['4', config, checkpoint, 'nosuch.jpg'], "nosuch.jpg doesn't exist"),
        (['4', config, 'nosuch.pth', image], "The checkpoint nosuch.pth doesn't exist"),
        (['4', config, checkpoint, image, '--out', tmp_path / 'a.png'], 'image.jpg could not be read'),
        (['4', config, checkpoint, image, '--columns', '0'], "argument --columns: '0' is no integer from 1"),
        (['5'], 'invalid choice'),
    ):
        code, _, errors = figures(*args)
        assert code == 2, args
        assert message in errors.strip().splitlines()[-1], (args, errors)
