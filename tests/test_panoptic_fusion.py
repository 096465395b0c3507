"""Fusion of instances and semantic classes: what is laid where, exactly at the thresholds too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from mmdet.models.seg_heads.panoptic_fusion_heads import HeuristicFusionHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from parity import read_arrays
from parity.panoptic import DEFAULT, LOOSE, fuse_by_hand
from torch import Tensor

from centermask import PanopticFusion
from centermask.structures.rle_masks import RLEMasks

THINGS, STUFF = 3, 2
VOID = THINGS + STUFF
SIZE = (40, 50)
WITHOUT_STUFF = torch.zeros(SIZE, dtype=torch.long)


def _fusion(**thresholds: float) -> PanopticFusion:
    return PanopticFusion(num_things_classes=THINGS, num_stuff_classes=STUFF, **thresholds)


def _columns(*ranges: tuple[int, int]) -> Tensor:
    """Return a mask of some columns for each range."""
    masks = torch.zeros(len(ranges), *SIZE, dtype=torch.bool)
    for mask, (first, last) in zip(masks, ranges, strict=True):
        mask[:, first:last] = True
    return masks


def _instances(masks: Tensor, scores: list[float], labels: list[int] | None = None) -> InstanceData:
    labels = [0] * len(scores) if labels is None else labels
    return InstanceData(scores=torch.tensor(scores), labels=torch.tensor(labels, dtype=torch.long), masks=masks)


def _as_rle(masks: Tensor) -> RLEMasks:
    return RLEMasks([coco_mask.encode(np.asfortranarray(mask.numpy())) for mask in masks], SIZE)


FORMATS = pytest.mark.parametrize('of', [lambda masks: masks, _as_rle], ids=['tensor', 'rle'])


@pytest.mark.parametrize('prefix, thresholds', [('fusion.', DEFAULT), ('fusion_loose.', LOOSE)])
def test_equals_the_release(shared: Path, prefix: str, thresholds: tuple[float, float, int]) -> None:
    """The hand-made input has ties at every threshold."""
    inputs = read_arrays(shared / 'parity/inputs_panoptic.npz', 'inputs')
    expected = read_arrays(shared / 'parity/star/panoptic_R_50.npz', 'expected file')
    for name, array in fuse_by_hand(inputs, thresholds, prefix).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@FORMATS
def test_map_of_labels_and_ids(of: Callable) -> None:
    """Ids go by falling score from 1 on; stuff has the id 0; what is left is void."""
    classes = torch.zeros(SIZE, dtype=torch.long)
    classes[:, 24:40], classes[:, 40:] = 1, 2
    instances = _instances(of(_columns((0, 10), (6, 20), (18, 30))), [0.6, 0.9, 0.7], [2, 0, 1])
    (fused,) = _fusion(stuff_area_limit=100).predict([instances], [classes])
    assert fused.sem_seg.shape == (1, *SIZE) and fused.sem_seg.dtype == torch.int32
    assert instances.segment_ids.tolist() == [3, 1, 2]
    row = [3002] * 6 + [1000] * 14 + [2001] * 10 + [THINGS] * 10 + [THINGS + 1] * 10
    assert (fused.sem_seg[0] == torch.tensor(row)).all()

    classes[:, 45:] = 0
    (fused,) = _fusion(score_thr=0.65, stuff_area_limit=201).predict([instances], [classes])
    assert instances.segment_ids.tolist() == [0, 1, 2]
    row = [VOID] * 6 + [1000] * 14 + [2001] * 10 + [THINGS] * 10 + [VOID] * 10
    assert (fused.sem_seg[0] == torch.tensor(row)).all()


@FORMATS
@pytest.mark.parametrize(
    ('first', 'second', 'ids'),
    [
        ((0, 10), (5, 15), [1, 2]),  # half is taken: it stays
        ((0, 10), (5, 14), [1, 0]),  # 5 of 9
        ((0, 10), (2, 8), [1, 0]),
        ((0, 10), (0, 0), [1, 0]),  # empty
        ((0, 0), (5, 15), [0, 1]),
    ],
)
def test_share_that_is_taken(first: tuple[int, int], second: tuple[int, int], ids: list[int], of: Callable) -> None:
    instances = _instances(of(_columns(first, second)), [0.9, 0.8])
    _fusion().predict([instances], [WITHOUT_STUFF])
    assert instances.segment_ids.tolist() == ids


def test_share_of_a_large_mask() -> None:
    """One pixel more than half of 20 million is more than half; in float32 it would be a half."""
    masks = torch.zeros(2, 4000, 5000, dtype=torch.bool)
    masks[1] = True
    masks[0, :2000] = True
    for extra, ids in ((0, [1, 2]), (1, [1, 0])):
        masks[0, 2000, :extra] = True
        instances = _instances(masks, [0.9, 0.8])
        _fusion().predict([instances], [torch.zeros(4000, 5000, dtype=torch.long)])
        assert instances.segment_ids.tolist() == ids


@pytest.mark.parametrize('threshold', [0.5, 0.3, 0.7])
def test_score_at_the_threshold(threshold: float) -> None:
    """Scores are float32 and compared as the numbers that they are: float32's 0.7 is less than 0.7."""
    nearest = np.float32(threshold)
    scores = [float(nearest), float(np.nextafter(nearest, np.float32(0))), 0.9]
    instances = _instances(_columns((0, 5), (10, 15), (20, 25)), scores)
    _fusion(score_thr=threshold).predict([instances], [WITHOUT_STUFF])
    assert instances.segment_ids.tolist() == [2 if float(nearest) >= threshold else 0, 0, 1]


@pytest.mark.parametrize(('limit', 'stays'), [(400, True), (401, False)])
def test_least_stuff(limit: int, stays: bool) -> None:
    """What counts are the pixels that instances leave."""
    classes = torch.ones(SIZE, dtype=torch.long)
    (fused,) = _fusion(stuff_area_limit=limit).predict([_instances(_columns((0, 40)), [0.9])], [classes])
    assert fused.sem_seg[0, 0, -1] == (THINGS if stays else VOID)


@FORMATS
def test_no_instance(of: Callable) -> None:
    instances = _instances(of(_columns()), [])
    (fused,) = _fusion().predict([instances], [WITHOUT_STUFF + 1])
    assert (fused.sem_seg == VOID).all() and len(instances.segment_ids) == 0
    (fused,) = _fusion(stuff_area_limit=1).predict([instances], [WITHOUT_STUFF + 1])
    assert (fused.sem_seg == THINGS).all()


@FORMATS
def test_equals_mmdetections_head_away_from_ties(of: Callable) -> None:
    """Of other masks its head makes the same map; it has the channel of things last."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 2, 2, generator=generator).sort(dim=1).values * torch.tensor(SIZE)
    masks = torch.zeros(12, *SIZE, dtype=torch.bool)
    for mask, (low, high) in zip(masks, corners.int().tolist(), strict=True):
        mask[low[0] : high[0], low[1] : high[1]] = True
    scores, labels = torch.rand(12, generator=generator).tolist(), [i % THINGS for i in range(12)]
    logits = torch.randn(STUFF + 1, *SIZE, generator=generator)
    theirs = HeuristicFusionHead(THINGS, STUFF, ConfigDict(mask_overlap=0.45, stuff_area_limit=300))
    boxes = InstanceData(
        bboxes=torch.zeros(12, 4), scores=torch.tensor(scores), labels=torch.tensor(labels), masks=masks
    )
    (expected,) = theirs.predict([boxes], [logits.roll(-1, dims=0)])
    ours = _fusion(score_thr=0, mask_overlap=0.45, stuff_area_limit=300)
    (fused,) = ours.predict([_instances(of(masks), scores, labels)], [logits.argmax(0)])
    assert torch.equal(fused.sem_seg, expected.sem_seg)
    assert len(fused.sem_seg.unique()) > 6


def test_more_classes_than_a_map_holds() -> None:
    assert PanopticFusion(num_things_classes=900, num_stuff_classes=99).num_classes == 999
    with pytest.raises(ValueError, match='up to 999 classes, not 1000'):
        PanopticFusion(num_things_classes=900, num_stuff_classes=100)
