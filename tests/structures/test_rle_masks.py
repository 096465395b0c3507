"""Run-length encoded masks, read as a list of RLEs and as an array."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.structures import InstanceData

from centermask.structures.rle_masks import RLEMasks, run_lengths

PIXELS = np.random.default_rng(0).random((3, 5, 7)) > 0.5
RLES = encode_mask_results(PIXELS)


def _masks() -> RLEMasks:
    return RLEMasks(RLES, (5, 7))


def test_is_a_sequence_of_rles() -> None:
    masks = _masks()
    assert len(masks) == 3 and list(masks) == RLES and masks[-1]['counts'] == RLES[-1]['counts']
    assert list(masks[1:]) == RLES[1:] and masks[:0].shape == (0, 5, 7)
    assert json.loads(json.dumps({**masks[0], 'counts': ''})) == {'size': [5, 7], 'counts': ''}
    assert list(pickle.loads(pickle.dumps(masks))) == RLES


def test_decodes_to_arrays() -> None:
    masks = _masks()
    assert masks.shape == PIXELS.shape
    np.testing.assert_array_equal(masks[1].decode(), PIXELS[1])
    np.testing.assert_array_equal(masks[1][2:, 3], PIXELS[1, 2:, 3])
    np.testing.assert_array_equal(masks.astype(bool), PIXELS)
    assert torch.equal(masks.cpu(), torch.from_numpy(PIXELS))
    assert encode_mask_results(masks.numpy()) == RLES


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 1])
def test_crop_is_the_part_with_pixels(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels = np.zeros(rng.integers(1, 300, 2), bool)
        part = pixels[rng.integers(len(pixels)) :, : rng.integers(pixels.shape[1]) + 1]
        part[...] = rng.random(part.shape) < share
        [rle] = RLEMasks(encode_mask_results(pixels[None]), pixels.shape)
        cropped, left, top = rle.crop()
        rows, columns = pixels.nonzero()
        assert not len(rows) or (left, top) == (columns.min(), rows.min())
        np.testing.assert_array_equal(cropped, pixels[top : top + cropped.shape[0], left : left + cropped.shape[1]])
        assert cropped.sum() == pixels.sum()


def test_is_indexed_and_concatenated_with_its_instances() -> None:
    instances = InstanceData(masks=_masks(), scores=torch.tensor([0.1, 0.9, 0.5]))
    assert list(instances[instances.scores > 0.3].masks) == RLES[1:]
    assert list(instances[torch.tensor([2, 0])].masks) == [RLES[2], RLES[0]]
    assert instances[instances.scores > 1].masks.shape == (0, 5, 7)
    assert list(InstanceData.cat([instances, instances]).masks) == RLES * 2
    assert list(instances.cpu().numpy().masks) == RLES


@pytest.mark.parametrize(
    'rle',
    [
        {'size': [4, 6], 'counts': [30, -6]},
        {'size': [4, 6], 'counts': [20.5, 3.5]},
        {'size': [4, 6], 'counts': encode_mask_results(np.ones((1, 4, 7)))[0]['counts']},
        {'size': [4, 6], 'counts': encode_mask_results(np.eye(4, 6)[None])[0]['counts'][:-1]},
        {'size': [4, 6], 'counts': 'h' * 9},
        {'size': [4, 6], 'counts': None},
        {'counts': [24]},
    ],
)
def test_damaged_encoding(rle: dict) -> None:
    with pytest.raises(ValueError, match=r'runs|not a run-length encoding'):
        run_lengths(rle)
