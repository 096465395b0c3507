"""The paper in the code: the line that computes an equation names it, and so does the file of a figure or table."""

import re
from pathlib import Path

import pytest

import centermask

MODEL = Path(centermask.__file__).parent
EQUATIONS = {
    1: 'scale_adaptive_roi_extractor',  # assignment of RoIs to levels, of FPN
    2: 'scale_adaptive_roi_extractor',  # and of CenterMask
    3: 'sag_mask_head',  # spatial attention
    4: 'sag_mask_head',
    5: 'vovnet',  # SE
    6: 'vovnet',  # eSE
    7: 'vovnet',
    8: 'detector',  # the loss
}
FIGURES_AND_TABLES = {
    'Fig. 2': 'detector',  # architecture
    'Fig. 3': 'vovnet',  # OSA modules
    'Table 1': 'sag_mask_head',  # parts of CenterMask
    'Table 2': 'scale_adaptive_roi_extractor',  # ranges of levels
    'Table 3': 'vovnet',  # backbones
    'Table 4': 'vovnet',  # parts of VoVNetV2
}


@pytest.mark.parametrize('number', EQUATIONS)
def test_equation_is_named_on_its_line(number: int) -> None:
    lines = {path.stem: re.findall(rf'\S.*  # Eq\. {number}\b', path.read_text()) for path in MODEL.glob('*.py')}
    assert {name: len(found) for name, found in lines.items() if found} == {EQUATIONS[number]: 1}


@pytest.mark.parametrize('name', FIGURES_AND_TABLES)
def test_figure_or_table_is_named_in_its_file(name: str) -> None:
    assert re.search(rf'\b{re.escape(name)}\b', (MODEL / f'{FIGURES_AND_TABLES[name]}.py').read_text())
