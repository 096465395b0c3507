"""Parity of panoptic models: deviations of semantic and panoptic maps are reported, and bad inputs named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.small_reference import as_in_files, write_config, write_inputs
from mmengine.config import Config

from centermask.engine.cli import run
from parity.__main__ import main
from parity.comparison import Arrays, Computed, compare
from parity.panoptic import compute

SIZE = (96, 128)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a small panoptic model."""
    folder = tmp_path_factory.mktemp('panoptic')
    write_config(folder, 'panoptic', {'test_cfg.score_thr': 0.001})
    write_inputs(folder)
    generator = np.random.default_rng(0)
    masks = generator.random((4, 40 * 50)) < 0.5
    arrays: Arrays = {
        'sem_seg': generator.integers(0, 3, SIZE, dtype=np.uint8),
        'sem_seg2': generator.integers(0, 3, SIZE, dtype=np.uint8),
        'fusion.masks': np.packbits(masks, axis=1),
        'fusion.scores': np.array([0.9, 0.8, 0.6, 0.2], np.float32),
        'fusion.labels': np.array([0, 1, 2, 0]),
        'fusion.sem_seg': generator.integers(0, 3, (40, 50), dtype=np.uint8),
    }
    np.savez(folder / 'inputs_panoptic.npz', **arrays)
    return folder


@pytest.fixture(scope='module')
def computed(folder: Path) -> Computed:
    return compute(Config.fromfile(folder / 'config.py'), {}, folder / 'inputs.npz')


def test_agrees_with_itself(computed: Computed) -> None:
    expected = as_in_files(computed.arrays)
    rows = compare(computed, expected)
    assert [row.name for row in rows] == [*expected] and all(row.ok for row in rows)
    groups = ('sem.logits', 'multi.sem.argmax', 'pair.loss.sem_seg', 'pair.grad.sem_seg_head.p5.4.weight', 'fpn.p2')
    groups += ('bias3.pan.map', 'bias3.pan_strict.segments', 'bias3.big.pan.scores', 'fusion.map', 'fusion_loose.map')
    assert expected.keys() >= {*groups}
    assert len(expected['bias3.big.pan.segments']) > 0 and expected['bias3.big.pan.map'].shape == (384, 512)


def _wrong(computed: Computed, name: str, changed: np.ndarray) -> list[str]:
    return [row.name for row in compare(computed, {**as_in_files(computed.arrays), name: changed}) if not row.ok]


@pytest.mark.parametrize('name', ['sem.argmax', 'bias3.pan.map'])
def test_tolerance_of_maps(computed: Computed, name: str) -> None:
    """One pixel in a thousand may differ, by any number; of 12288 that is 12."""
    for count, wrong in ((12, []), (13, [name])):
        changed = computed.arrays[name].copy()
        changed.ravel()[:count] += 1
        assert _wrong(computed, name, changed) == wrong


@pytest.mark.parametrize(('column', 'change', 'ok'), [(3, 12, True), (3, 13, False), (2, 1, False), (4, 1, False)])
def test_tolerance_of_segments(computed: Computed, column: int, change: int, ok: bool) -> None:
    """Pixels may differ by a thousandth of all; numbers, classes and instances not at all."""
    name = 'bias3.pan.segments'
    changed = np.array([[1, 1, 2, 6000, 0], [2, 0, 5, 6000, -1]])
    same = computed._replace(arrays={name: changed.copy()}, steps=())
    changed[0, column] += change
    assert [row.ok for row in compare(same, {name: changed})] == [ok]


def test_hand_made_fusion_is_exact(computed: Computed) -> None:
    for name in ('fusion.map', 'fusion_loose.scores'):
        changed = computed.arrays[name].copy()
        changed.ravel()[0] += 1
        assert _wrong(computed, name, changed) == [name]


BAD = [
    (
        lambda f: (f / 'inputs_panoptic.npz').unlink(),
        "The inputs of panoptic models {f}/inputs_panoptic.npz doesn't exist",
    ),
    (
        lambda f: _save(f, sem_seg=None),
        'The inputs of panoptic models {f}/inputs_panoptic.npz have no sem_seg: add it.',
    ),
    (
        lambda f: _save(f, sem_seg=np.zeros((9, 9), np.uint8)),
        'A semantic map of the inputs is (9, 9), its image (96, 128)',
    ),
    (
        lambda f: _save(f, sem_seg2=np.full(SIZE, 3, np.uint8)),
        'The semantic maps have class 3 and the model of {f}/config.py has 2 classes of stuff: give the config',
    ),
]


def _save(folder: Path, **changes: np.ndarray | None) -> None:
    arrays = {**np.load(folder / 'inputs_panoptic.npz'), **changes}
    np.savez(folder / 'inputs_panoptic.npz', **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(('change', 'sentence'), BAD)
def test_bad_input(
    folder: Path, tmp_path: Path, change: Callable, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    for name in ('config.py', 'inputs.npz', 'inputs.json', 'inputs_panoptic.npz'):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    np.savez(tmp_path / 'expected.npz', x=np.zeros(1))
    change(tmp_path)
    assert run(lambda: main([str(tmp_path / 'config.py'), str(tmp_path / 'expected.npz')])) == 2
    assert sentence.format(f=tmp_path) in capsys.readouterr().err
