"""Commands on bad input, run in this process, so that all cases import torch once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from PIL import Image

from centermask.engine.cli import run


class Outcome(NamedTuple):
    """The end of a command."""

    code: int  # -1 if it raised what would be a traceback
    said: str  # on stderr
    written: list[Path]  # files that weren't there before, but MMEngine's log and its copy of the config

    def refused(self, *words: str) -> bool:
        """Return whether it ended with code 2, one sentence that has these words, and no new file."""
        lines = self.said.splitlines()
        sentence = lines[-1] if lines else ''
        return (
            self.code == 2
            and not self.written
            and sum(line.startswith('error: ') for line in lines) == 1
            and sentence.startswith('error: ')
            and 'Traceback' not in self.said
            and all(word in sentence for word in words)
        )


@MODELS.register_module()
class OneWeight(BaseModel):
    """A model of one weight; none runs before an input is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, *args: Any, **kwargs: Any) -> dict:
        return {'loss': self.layer.weight.sum()}


@pytest.fixture
def outcome(tools: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., Outcome]:
    """``outcome('predict', *words)`` runs tools/predict.py in this process."""

    def call(tool: str | Callable, *words: object) -> Outcome:
        before = set(tmp_path.rglob('*'))
        main = tools(tool) if isinstance(tool, str) else tool
        try:
            code = run(lambda: main([str(word) for word in words]))
        except Exception as error:
            code = -1
            print(error)
        new = {path for path in set(tmp_path.rglob('*')) - before if path.is_file()}
        written = sorted(path for path in new if path.suffix not in ('.log', '.py') and 'vis_data' not in path.parts)
        return Outcome(code, capsys.readouterr().err, written)

    return call


@pytest.fixture
def annotations() -> dict:
    """Return proper annotations of one image with one object."""
    return {
        'categories': [{'id': 1, 'name': 'thing'}],
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 60, 'height': 40}],
        'annotations': [
            {
                'id': 1,
                'image_id': 1,
                'category_id': 1,
                'bbox': [10, 10, 20, 20],
                'area': 400,
                'iscrowd': 0,
                'segmentation': [[10, 10, 30, 10, 30, 30, 10, 30]],
            }
        ],
    }


@pytest.fixture
def data(tmp_path: Path, annotations: dict) -> Path:
    """Return a folder with these annotations and the image."""
    folder = tmp_path / 'data'
    (folder / 'images').mkdir(parents=True)
    Image.fromarray(np.full((40, 60, 3), 99, np.uint8)).save(folder / 'images/a.png')
    (folder / 'annotations.json').write_text(json.dumps(annotations))
    return folder


@pytest.fixture
def config(tmp_path: Path, data: Path) -> Path:
    """Return a config that trains on them, with a model of one weight."""
    path = tmp_path / 'config.py'
    path.write_text(f"""
custom_imports = dict(imports=['centermask'])
default_scope = 'mmdet'
runner_type = 'CenterMaskRunner'
experiment_name = '{tmp_path.name}'  # else runs of one second share their log
model = dict(type='OneWeight')
train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type='CenterMaskCocoDataset',
        metainfo=dict(classes=('thing',)),
        data_root='{data}/',
        ann_file='annotations.json',
        data_prefix=dict(img='images/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
            dict(type='Resize', _scope_='centermask', scale=(60, 40), keep_ratio=True),
            dict(type='PackDetInputs'),
        ],
    ),
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
param_scheduler = []
""")
    return path
