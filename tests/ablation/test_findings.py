"""The table and the picture of what was found."""

from pathlib import Path

import cv2
import pytest

from centermask.ablation.report import compare, draw, level_shares, levels_text, markdown
from centermask.ablation.rows import ROWS, choose
from centermask.tables.index import read_index

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PAPER = read_index(CONFIGS).rows


def result(box: float, mask: float | None = None, **levels: int) -> dict:
    return {'box AP': box, 'levels': levels} | ({} if mask is None else {'mask AP': mask})


RESULTS = {
    'fcos': {0: result(10.0), 1: result(20.0), 2: result(30.0)},
    'eq1': {
        0: result(11.0, 5.0, P3=9, P4=1, P5=0),
        1: result(21.1, 6.0, P3=10, P4=0, P5=0),
        2: result(30.9, 7.0, P3=8, P4=2, P5=0),
    },
    'eq2': {0: result(12.0, 5.1, P3=5, P4=3, P5=2), 1: result(22.0, 5.9, P3=5, P4=3, P5=2)},
    'scoring': {0: result(12.0, 5.0, P3=1, P4=0, P5=0)},
    'p3-p4': {0: result(13.0, 4.0, P3=3, P4=1)},
}


def test_differences_stand_beside_the_papers() -> None:
    comparisons = {c.row.name: c for c in compare(ROWS, RESULTS, PAPER)}
    assert comparisons['eq1'].difference['box AP'].mean == pytest.approx(1.0)
    assert comparisons['eq1'].difference['mask AP'] is None
    assert comparisons['eq2'].difference['mask AP'].mean == pytest.approx(0.0)
    assert comparisons['sam'].difference['mask AP'] is None
    in_paper = {name: (c.paper['mask AP'], c.paper['box AP']) for name, c in comparisons.items()}
    assert in_paper == {
        'eq1': (None, 0.5),
        'eq2': (0.4, 0.4),
        'sam': (0.2, 0.2),
        'scoring': (0.7, -0.1),
        'p3-p7': (-0.2, -0.1),
        'p3-p6': (0.0, -0.1),
        'p3-p4': (-0.2, -0.4),
        'v1-residual': (6.1, 7.2),
    }


def test_table() -> None:
    rows = choose(['fcos', 'eq1', 'eq2', 'p3-p4'])
    lines = markdown(rows, RESULTS, compare(rows, RESULTS, PAPER)).splitlines()
    assert len({line.count('|') for line in lines[:6]}) == 1
    cells = {line.split(' | ')[1]: line.strip('| ').split(' | ') for line in lines[2:6]}
    assert cells['FCOS alone'][2:5] == ['-', '20.0', '-']
    # Differences 1, 1.1, 0.9: standard deviation 0.1, and 4.303 × 0.1 / √3 = 0.25.
    assert cells['+ mask head, Eq. 1'][2:] == [
        '6.0',
        '21.0',
        'FCOS alone',
        '-',
        '-',
        '+1.0 ± 0.2',
        '+0.5',
        'P3 90%, P4 10%, P5 0%',
    ]
    # Differences 0.1 and −0.1 with 1 degree of freedom: 12.706 × 0.1414 / √2 = 1.27.
    assert cells['Eq. 2 instead'][5].endswith('0.0 ± 1.3, not resolved at this scale')
    assert cells['P3-P4'][5:9] == ['−1.0, one seed, no interval', '−0.2', '+1.0, one seed, no interval', '−0.4']


def test_a_residual_in_the_shallow_backbone_is_explained() -> None:
    assert 'a residual connection would change nothing' in markdown(ROWS, {}, compare(ROWS, {}, PAPER))


def test_levels() -> None:
    assert level_shares(RESULTS['eq1']) == pytest.approx({'P3': 0.9, 'P4': 0.1, 'P5': 0.0})
    assert level_shares(RESULTS['fcos']) == {}
    lines = list(levels_text(choose(['fcos', 'eq2']), RESULTS))
    assert [line.split()[-3:-1] for line in lines] == [['P3', '50.0%'], ['P4', '30.0%'], ['P5', '20.0%']]
    assert lines[0].count('█') == 20


@pytest.mark.parametrize('names', [None, ['fcos'], ['eq1', 'eq2', 'p3-p4']])
def test_picture(names: list[str] | None, tmp_path: Path) -> None:
    rows = choose(names)
    draw(rows, RESULTS, compare(rows, RESULTS, PAPER), tmp_path / 'ablation.png')
    picture = cv2.imread(str(tmp_path / 'ablation.png'))
    assert picture.shape[1] > 1000
    assert picture.std() > 5
