"""ShapeMask's priors: k-means of masks, the file, and what the model reads from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.read_configs import read_config
from mmdet.registry import MODELS

from centermask.baselines.shapemask_prior_head import ShapePriorHead
from centermask.baselines.shapemask_priors import load_priors
from centermask.datasets.coco import CenterMaskCocoDataset
from centermask.datasets.shape_priors import k_means, make_priors
from centermask.datasets.shapes import CLASSES, make_dataset
from centermask.engine.cli import run
from centermask.utils.coco_ids import THING_IDS
from centermask.utils.errors import InputError


def test_k_means_finds_separate_clusters() -> None:
    """Centres are the clusters' means, the largest cluster first."""
    random = np.random.default_rng(0)
    means = np.eye(3, 8, dtype=np.float32) * 10
    clusters = [means[i] + random.normal(0, 0.1, (n, 8)).astype(np.float32) for i, n in enumerate((20, 50, 5))]
    centres = k_means(random.permutation(np.concatenate(clusters)), 3, np.random.default_rng(1))
    expected = np.stack([clusters[i].mean(0) for i in (1, 0, 2)])
    np.testing.assert_allclose(centres, expected, atol=1e-5)


def test_k_means_of_equal_points() -> None:
    points = np.ones((5, 4), np.float32)
    assert (k_means(points, 3, np.random.default_rng(0)) == 1).all()


def test_priors_of_a_data_set(tmp_path: Path) -> None:
    """The same seed gives the same bytes, another one other shapes; circles leave the corners of their box."""
    make_dataset(tmp_path / 'data', 30, seed=0)
    files = [tmp_path / name for name in ('one.npy', 'same.npy', 'other.npy')]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        counts = make_priors(tmp_path / 'data/annotations.json', file, num_priors=4, seed=seed)
    assert list(counts) == list(CLASSES) and min(counts.values()) > 4
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    priors = np.load(files[0])
    assert priors.shape == (len(CLASSES), 4, 32, 32) and priors.dtype == np.float32
    circle = priors[CLASSES.index('circle')]
    assert circle[:, 16, 16].min() > 0.9 and circle[:, ::31, ::31].max() < 0.5
    assert 0.6 < circle.mean() < np.pi / 4  # some are partly covered


def test_classes_with_few_masks(tmp_path: Path) -> None:
    """One mask is repeated, a crowd isn't used, and a class without masks has zeros. Labels follow the ids."""
    outline = [[10.0, 10, 50, 10, 50, 50, 10, 50]]
    objects = [
        dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], segmentation=outline, area=1600, iscrowd=0),
        dict(id=2, image_id=1, category_id=2, bbox=[10, 10, 40, 40], segmentation=outline, area=1600, iscrowd=1),
    ]
    coco = dict(
        images=[dict(id=1, file_name='a.png', width=64, height=64)],
        annotations=objects,
        categories=[dict(id=7, name='seven'), dict(id=2, name='two')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(coco))
    assert make_priors(tmp_path / 'a.json', tmp_path / 'p.npy', num_priors=3) == {'two': 0, 'seven': 1}
    two, seven = np.load(tmp_path / 'p.npy')
    assert not two.any() and seven.mean() > 0.9 and (seven == seven[0]).all()

    (tmp_path / 'a.json').write_text(json.dumps({**coco, 'annotations': objects[1:]}))
    with pytest.raises(InputError, match='has no object with a usable outline'):
        make_priors(tmp_path / 'a.json', tmp_path / 'p.npy')


def test_command(tmp_path: Path, tools, capsys: pytest.CaptureFixture) -> None:
    make_dataset(tmp_path / 'data', 2, seed=0)
    tools('make_shape_priors')([str(tmp_path / 'data/annotations.json'), str(tmp_path / 'p.npy'), '--priors', '3'])
    out, err = capsys.readouterr()
    assert f'{tmp_path}/p.npy: 3 shapes of 32x32 for each of 5 classes' in out and 'mask/s' in err
    assert run(lambda: tools('make_shape_priors')([str(tmp_path / 'none.json'), str(tmp_path / 'q.npy')])) == 2
    with pytest.raises(SystemExit, match='2'):
        tools('make_shape_priors')([str(tmp_path / 'data/annotations.json'), str(tmp_path / 'q.npy'), '--seed', '-1'])
    assert "--seed: '-1' is no integer from 0" in capsys.readouterr().err
    assert not (tmp_path / 'q.npy').exists()


# Reading


def test_labels_of_the_rows(tmp_path: Path) -> None:
    """A row for each class, one more for the background, or 91 of COCO's ids."""
    file, rows = tmp_path / 'p.npy', np.arange(91, dtype=np.float32)[:, None, None, None]
    np.save(file, rows[:80])
    assert load_priors(str(file), 81, 1, 1, 1).flatten().tolist() == [0, *range(80)]
    np.save(file, rows[:81])
    assert load_priors(str(file), 81, 1, 1, 1).flatten().tolist() == [*range(81)]
    np.save(file, rows)
    assert load_priors(str(file), 81, 1, 1, 1).flatten().tolist() == [0, *THING_IDS]
    assert load_priors(str(file), 91, 1, 1, 1).flatten().tolist() == [*range(91)]


def test_ids_are_cocos(shared: Path) -> None:
    coco = json.loads((shared / 'data/coco6/instances.json').read_text())
    ids = {category['name']: category['id'] for category in coco['categories']}
    assert [ids[name] for name in CenterMaskCocoDataset.METAINFO['classes']] == [*THING_IDS]


@pytest.mark.parametrize(
    'content, sentence',
    [
        (None, "doesn't exist: make it by `python tools/make_shape_priors.py ANNOTATIONS.json"),
        (b'nonsense', "can't be read as an array of NumPy"),
        (np.zeros((7, 2, 4, 4), np.float32), 'has the shape (7, 2, 4, 4), the model needs (3, 2, 4, 4)'),
        (np.zeros((3, 2, 4, 4), np.int64), 'holds int64 instead of fractions'),
        (np.full((3, 2, 4, 4), np.nan, np.float32), 'holds NaN or infinity'),
    ],
)
def test_bad_file(tmp_path: Path, content: np.ndarray | bytes | None, sentence: str) -> None:
    """One sentence when the model starts, not before: a checkpoint brings its own."""
    file = tmp_path / 'p.npy'
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    head = ShapePriorHead(3, 2, str(file), False, channels=4, size=4)
    with pytest.raises(InputError) as error:
        head.init_weights()
    assert sentence in str(error.value) and str(file) in str(error.value)


def test_the_config_names_the_file() -> None:
    config = read_config('shapemask_r101_fpn_2x_coco').model
    config.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(config)
    assert model.roi_head.prior_head.file == 'data/coco/shape_priors.npy'
    assert model.state_dict()['roi_head.prior_head.priors'].shape == (81, 20, 32, 32)
