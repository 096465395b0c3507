"""Tables as Markdown and CSV, and the page of docs/ in step with them."""

import csv
from pathlib import Path

import pytest

from centermask.tables.index import LATENCY, TABLES, Index
from centermask.tables.pages import as_csv, markdown, page

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'paper_tables.md'


def test_page_is_in_step(index: Index) -> None:
    """What `python tools/tables.py all --docs` would write is there."""
    assert PAGE.read_text() == page(index.rows)


@pytest.mark.parametrize('number', TABLES)
def test_both_forms_hold_the_same(index: Index, number: int) -> None:
    """Each parses, every row has as many cells as the head, and they agree."""
    head, *body = csv.reader(as_csv(number, index.rows).splitlines())
    assert len(body) == TABLES[number].rows
    assert {len(row) for row in body} == {len(head)}
    table = [line for line in markdown(number, index.rows).splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in table]
    assert cells[0] == head
    assert {len(row) for row in cells} == {len(head)}
    assert [[cell.replace('\\*', '*').strip('`') for cell in row] for row in cells[2:]] == [
        [cell or '–' for cell in row]  # noqa: RUF001
        for row in body
    ]


def test_a_row(index: Index) -> None:
    rows = {row['Component']: row for row in csv.DictReader(as_csv(1, index.rows).splitlines())}
    (measured,) = (row.measured for row in index.rows if row.config == 'fcos_r50_fpn_1x_coco')
    assert rows['FCOS (baseline)'] == {
        'Component': 'FCOS (baseline)',
        'paper: mask AP': '',
        'paper: box AP': '37.8',
        'paper: ms (Titan Xp)': '57',
        'ours: params (M)': '32.2',
        'ours: GFLOPs': '419.6',
        'ours: ms': f'{measured[LATENCY][0]["value"]} (AMD EPYC, 2 threads)',
        'ours: mask AP': 'not measured',
        'ours: box AP': 'not measured',
        'config': 'fcos_r50_fpn_1x_coco',
    }


def test_measured_figures(index: Index) -> None:
    measured = {
        LATENCY: [{'value': 812, 'hardware': 'AMD EPYC, 2 threads'}],
        'Own mask AP': 34.5,
        'Own box AP': 'not measured',
    }
    (row,) = csv.DictReader(as_csv(1, [index.rows[4]._replace(measured=measured)]).splitlines())
    assert row['ours: ms'] == '812 (AMD EPYC, 2 threads)'
    assert [row[f'ours: {name}'] for name in ('params (M)', 'mask AP', 'box AP')] == [
        'not measured',
        '34.5',
        'not measured',
    ]


def test_literature_says_so(index: Index) -> None:
    rows = list(csv.DictReader(as_csv(5, index.rows).splitlines()))
    assert [row['Method'] for row in rows if row['config'] == "the literature's"] == ['ShapeMask', 'TensorMask']


def test_why_counts_differ(index: Index) -> None:
    *_, note = markdown(4, index.rows).strip().splitlines()
    assert note.startswith('Parameters of VoVNet-99, V1; VoVNet-99, V1 + residual; VoVNet-99, V1 + residual + SE: ')
    assert '1, 3, 8, 3' in note and '1, 3, 9, 3' in note
