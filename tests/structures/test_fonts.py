"""Fonts for class names of any script."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from matplotlib.ft2font import FT2Font

from centermask.structures import fonts

OTHER = Path(matplotlib.get_data_path(), 'fonts/ttf/STIXGeneral.ttf')
ONLY_THERE = chr(min(set(FT2Font(str(OTHER)).get_charmap()) - set(FT2Font(fonts.DEFAULT).get_charmap())))


@pytest.fixture(autouse=True)
def nothing_found_before() -> Iterator[None]:
    cached = (fonts.find_font, fonts.drawable_names, fonts.load_font)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(fonts, 'print_log', lambda line, *_: said.append(line))
    return said


@pytest.fixture
def fontconfig(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let fontconfig find a file for any letters."""

    def find(path: str) -> None:
        monkeypatch.setattr(subprocess, 'run', lambda *_, **__: SimpleNamespace(stdout=path))

    return find


def test_a_name_without_a_font_becomes_a_number(fontconfig: Callable, lines: list[str]) -> None:
    fontconfig(fonts.DEFAULT)  # what it answers where no font has them
    names = ('car', '汽车', 'vélo', 'собака', 'कुत्ता', ' two\nlines ', '')
    shown = ['car', 'class 1', 'vélo', 'собака', 'class 4', 'two lines', 'class 6']
    for _ in range(2):
        assert fonts.drawable_names(names) == shown
    assert lines == [
        'No installed font has the letters of some class names, so that images show class 1 for 汽车, class 4 for '
        'कुत्ता: install a font, for example apt install fonts-noto-cjk.'
    ], 'one line, once'
    assert fonts.load_font('class 1', 12).path == fonts.DEFAULT


def test_an_installed_font_is_found(fontconfig: Callable, lines: list[str]) -> None:
    fontconfig(str(OTHER))
    assert fonts.drawable_names((ONLY_THERE, 'car')) == [ONLY_THERE, 'car']
    assert fonts.load_font(ONLY_THERE, 12).path == str(OTHER)
    assert fonts.load_font('car', 12).path == fonts.DEFAULT
    assert not lines


def test_without_fontconfig_all_fonts_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    (tmp_path / 'broken.ttf').write_text('no font')
    monkeypatch.setattr(subprocess, 'run', missing)
    monkeypatch.setattr(fonts, 'findSystemFonts', lambda: [str(tmp_path / 'broken.ttf'), str(OTHER)])
    assert fonts.find_font(ONLY_THERE) == str(OTHER)


def test_letters_that_need_shaping(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    """The default font has Arabic letters, but they are joined and turned round by Raqm alone."""
    monkeypatch.setattr(fonts.features, 'check', lambda _: False)
    assert fonts.drawable_names(('سيارة', 'car')) == ['class 0', 'car']
    assert 'class 0 for سيارة: install FriBiDi' in lines[0]
    fonts.drawable_names.cache_clear()
    monkeypatch.setattr(fonts.features, 'check', lambda _: True)
    assert fonts.drawable_names(('سيارة', 'car')) == ['سيارة', 'car']


def test_a_long_name_is_cut() -> None:
    assert fonts.drawable_names(('a' * 100,)) == ['a' * 23 + '…']
