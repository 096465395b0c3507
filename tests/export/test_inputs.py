"""Images to compare a file on and to calibrate it with."""

from pathlib import Path

import numpy as np
import torch
from helpers.small_model import small_model
from mmengine.config import ConfigDict

from centermask.engine.configs import load_config
from centermask.export.inputs import make_inputs, paths_of_dataset, synthetic_images


def test_paths_of_a_dataset(tiny_config: Path) -> None:
    cfg = load_config(tiny_config)
    paths = paths_of_dataset(cfg.train_dataloader.dataset, 3)
    assert [Path(path).parent.parent.name for path in paths] == ['train'] * 3
    wrapped = ConfigDict(type='MultiImageMixDataset', dataset=cfg.train_dataloader.dataset, pipeline=[])
    assert paths_of_dataset(wrapped, 3) == paths
    assert len(paths_of_dataset(cfg.test_dataloader.dataset, 9)) == 3  # as many as there are
    cfg = load_config(tiny_config, {'train_dataloader.dataset.data_root': 'nowhere/'})
    assert paths_of_dataset(cfg.train_dataloader.dataset, 3) == []


def test_synthetic_images() -> None:
    images = synthetic_images()
    assert {image.dtype for image in images} == {torch.uint8}
    assert len({image.shape for image in images}) == len(images) == 3


def test_inputs() -> None:
    model, image = small_model(), torch.full((3, 70, 90), 200, dtype=torch.uint8)
    (inputs,) = make_inputs(model, [image], preprocess=False)
    assert inputs['images'].shape == (1, 3, 96, 96) and inputs['sizes'].tolist() == [[70, 90]]
    (inputs,) = make_inputs(model, [image], preprocess=True)
    assert inputs['images'].dtype == np.uint8 and inputs['images'].shape == (1, 70, 90, 3)
