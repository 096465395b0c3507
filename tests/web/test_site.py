"""Models whose resizing the page has, and options of the export that don't go with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.read_configs import read_config

from centermask.engine.cli import run
from centermask.utils.errors import InputError
from centermask.web.site import require_page_resizing


def test_takes_the_recipes_resizing() -> None:
    for name in ('centermask_v2-39_fpn_2x_coco', 'demo/centermask-lite-star_v2-19-slim_shapes'):
        require_page_resizing(read_config(name))
    config = read_config('demo/centermask-lite-star_v2-19-slim_shapes')
    config.test_dataloader.dataset.pipeline[1] = {'type': 'centermask.Resize', 'scale': (160, 160)}
    require_page_resizing(config)


def test_refuses_another_resizing() -> None:
    for steps in (
        [{'type': 'Resize', 'scale': (160, 160)}],
        [{'type': 'centermask.Resize', 'scale': (160, 160), 'backend': 'cv2'}],
        [{'type': 'centermask.Resize', 'scale': (160, 160)}] * 2,
    ):
        config = read_config('demo/centermask-lite-star_v2-19-slim_shapes')
        config.test_dataloader.dataset.pipeline[1:2] = steps
        with pytest.raises(InputError, match='the only rule that the page has'):
            require_page_resizing(config)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--out', 'site', '--half'], "--half doesn't go with --format web"),
        (['--out', 'site', '--full-masks'], "--full-masks doesn't go with --format web"),
        (['--out', 'model.onnx'], '--out model.onnx: the name of such a folder has no suffix'),
    ],
)
def test_refuses_options(
    options: list[str], message: str, tools: Callable, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    pytest.importorskip('onnxscript')
    assert run(lambda: tools('export')(['config.py', 'model.pth', '--format', 'web', *options])) == 2
    assert message in capsys.readouterr().err
