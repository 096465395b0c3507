"""Drawing of results."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from centermask import CenterMaskVisualizer
from centermask.mask_pasting import encode, paste


@pytest.mark.parametrize('number', [0, 3])
def test_encoded_masks_look_like_arrays(number: int) -> None:
    rng = np.random.default_rng(0)
    boxes = np.float32([[4, 6, 60, 50], [30, 20, 90, 70], [-5, -5, 20, 100]])[:number]
    cells = (rng.random((3, 28, 28), np.float32) > 0.2)[:number].astype(np.float32)
    image = rng.integers(0, 256, (80, 100, 3), np.uint8)
    images = []
    for masks in (
        torch.from_numpy(paste(cells, boxes, (80, 100), 0.5, 'sampled')),
        encode(cells, boxes, (80, 100), 0.5, 'sampled'),
    ):
        found = InstanceData(
            bboxes=torch.from_numpy(boxes),
            scores=torch.tensor([0.9, 0.8, 0.1])[:number],
            labels=torch.tensor([2, 0, 1])[:number],
            masks=masks,
        )
        visualizer = CenterMaskVisualizer(f'test of {type(masks).__name__}')
        visualizer.dataset_meta = dict(classes=('a', 'b', 'c'), palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)])
        np.random.seed(0)  # colours are jittered
        visualizer.add_datasample('', image, DetDataSample(pred_instances=found), draw_gt=False)
        images.append(visualizer.get_image())
    assert images[0].shape == images[1].shape == image.shape
    assert np.abs(images[0].astype(int) - images[1]).max() <= 2
    assert (np.abs(images[1].astype(int) - image).max() > 50) == (number > 0)
