"""Panoptic quality against the numbers of COCO's evaluation, and as a metric of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_panoptic import METAINFO, SIZE, write_set
from mmdet.evaluation.functional import INSTANCE_OFFSET

from centermask.datasets.coco_panoptic import Category, PanopticAnnotations, number_segments
from centermask.datasets.panoptic_metric import PanopticQuality, match_segments, quality, sum_matches
from centermask.utils.errors import InputError, RunError


def test_made_cases(shared: Path) -> None:
    """Matches and figures are those of COCO's evaluation, with crowds, void, and overlaps of exactly a half."""
    cases, maps = json.loads((shared / 'parity/pq_cases.json').read_text()), np.load(shared / 'parity/pq_cases.npz')
    categories = [Category(entry['id'], '', bool(entry['isthing'])) for entry in cases['categories']]
    sums = np.zeros((len(categories), 4))
    each = zip(cases['gt_segments'], cases['pred_segments'], cases['matched'], strict=True)
    for i, (truths, found, expected) in enumerate(each):
        numbered = number_segments(maps['gt'][i], truths), number_segments(maps['pred'][i], found)
        match = match_segments(*numbered, truths, found)
        assert sorted(truths[place]['id'] for place in match.truths) == expected['gt']
        assert sorted(found[place]['id'] for place in match.found) == expected['pred']
        counted = {*match.found.tolist(), *match.wrong.tolist()}
        ignored = [segment['id'] for place, segment in enumerate(found) if place not in counted]
        assert ignored == expected['ignored_pred']
        sums += sum_matches(match, truths, found, categories)
    for category, row in zip(categories, sums, strict=True):
        assert row.tolist() == pytest.approx([*cases['per_category'][str(category.id)].values()], abs=1e-12)
    things = np.array([category.isthing for category in categories])
    for name, chosen in (('All', np.ones_like(things)), ('Things', things), ('Stuff', ~things)):
        assert quality(sums[chosen])._asdict() == pytest.approx(cases['expected'][name], abs=1e-12)


def test_quality_of_nothing_is_undefined() -> None:
    assert quality(np.zeros((3, 4))) == (-1, -1, -1, 0)


@pytest.fixture
def sample() -> dict:
    """A map of the small image: the dog and the sky are found, the sky on the grass too, and a cat on the crowd."""
    panoptic = torch.full(SIZE, 4)
    panoptic[:, :10] = 0 + INSTANCE_OFFSET
    panoptic[:, 10:20] = 1 + 2 * INSTANCE_OFFSET
    panoptic[:, 20:32] = 3
    return {'img_id': 4, 'img_path': '/somewhere/a.jpg', 'pred_panoptic_seg': {'sem_seg': panoptic[None]}}


def test_metric(sample: dict, tmp_path: Path) -> None:
    """The cat is ignored; the sky is 10 of 12 columns; the grass is missed. Classes are in another order than ids."""
    metric = PanopticQuality(*map(str, write_set(tmp_path)), classwise=True, outfile_prefix=str(tmp_path / 'out'))
    metric.dataset_meta = METAINFO
    metric.process({}, [sample])
    scores = metric.evaluate(1)
    assert scores['coco_panoptic/PQ'] == pytest.approx(100 * (1 + 10 / 12 + 0) / 3)
    assert (scores['coco_panoptic/PQ_th'], scores['coco_panoptic/SQ_th']) == (100, 100)
    assert (scores['coco_panoptic/RQ_st'], scores['coco_panoptic/SQ_st']) == (50, pytest.approx(100 * 10 / 12 / 2))
    written = PanopticAnnotations(tmp_path / 'out.panoptic.json', tmp_path / 'out.panoptic')
    assert [segment['category_id'] for segment in written.read(4)[1]] == [9, 7, 1]


def test_metric_refuses_what_does_not_fit(sample: dict, tmp_path: Path) -> None:
    metric = PanopticQuality(*map(str, write_set(tmp_path)))
    for stuff in (('sky',), ('sky', 'grass')):  # by their ids the grass is first
        message = f'has the stuff grass, sky but the data set {", ".join(stuff)}: set stuff_classes'
        with pytest.raises(InputError, match=message):
            metric.dataset_meta = {**METAINFO, 'stuff_classes': stuff}
    metric.dataset_meta = METAINFO
    with pytest.raises(InputError, match='no image with the id 5'):
        metric.process({}, [{**sample, 'img_id': 5}])
    sample['pred_panoptic_seg']['sem_seg'] = torch.zeros(1, 40, 50, dtype=torch.long)
    with pytest.raises(RunError, match='is 60x40 pixels but its image 50x40'):
        metric.process({}, [sample])
