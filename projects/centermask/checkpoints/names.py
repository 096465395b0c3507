"""Names of tensors in two layouts, translated in both directions by one table of templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_FIELD = re.compile(r'\{(\d*)([a-z]|\*)(?:\+(\d+))?\}')


class Template:
    """A name in which some parts vary: ``cls_tower.{3i+1}.{*}``.

    ``{i}`` is a number; ``{3i+1}`` is one more than three times it. ``{*}`` is a word without dots. A letter that
    occurs twice has one value.

    Args:
        text: the template.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._fields = [(name, int(factor or 1), int(offset or 0)) for factor, name, offset in _FIELD.findall(text)]
        fixed = [re.escape(part) for part in re.split(_FIELD.pattern, text)[::4]]
        groups = [r'(\w+)' if name == '*' else '(0|[1-9][0-9]*)' for name, _, _ in self._fields]
        self.pattern = re.compile(''.join(part for pair in zip(fixed, [*groups, ''], strict=True) for part in pair))

    def match(self, name: str) -> dict[str, int | str] | None:
        """Return the values that turn the template into ``name``, None if there are none."""
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        values: dict[str, int | str] = {}
        for text, (field, factor, offset) in zip(found.groups(), self._fields, strict=True):
            value: int | str = text
            if field != '*':
                value, rest = divmod(int(text) - offset, factor)
                if rest or value < 0:
                    return None
            if values.setdefault(field, value) != value:
                return None
        return values

    def fill(self, values: dict[str, int | str]) -> str:
        """Return the template's name for these values."""

        def value(found: re.Match) -> str:
            factor, field, offset = found.groups()
            here = values[field]
            return here if isinstance(here, str) else str(int(factor or 1) * here + int(offset or 0))

        return _FIELD.sub(value, self.text)

    def __str__(self) -> str:
        return self.text


class Row(NamedTuple):
    """Names of one tensor, or of several of one kind, in both layouts."""

    released: Template
    mmdet: Template


class NameTable:
    """Rows of templates, tried in their order.

    Args:
        rows: pairs of a template of the released layout and one of MMDetection's, with the same letters.
    """

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = [Row(Template(released), Template(mmdet)) for released, mmdet in rows]
        self._any = re.compile('|'.join(row.released.pattern.pattern for row in self.rows))

    def from_release(self, name: str) -> str | None:
        """Return MMDetection's name of a released tensor, None if no row has it."""
        if self._any.fullmatch(name) is None:  # most names are looked up in many tables, with many prefixes
            return None
        for row in self.rows:
            values = row.released.match(name)
            if values is not None:
                return row.mmdet.fill(values)
        return None

    def to_release(self, name: str) -> str | None:
        """Return the released name of one of MMDetection's tensors, None if no row has it."""
        for row in self.rows:
            values = row.mmdet.match(name)
            if values is not None:
                return row.released.fill(values)
        return None


def prefixed(released: str, mmdet: str, rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows with a prefix before each name, one for either layout."""
    return [(released + row[0], mmdet + row[1]) for row in rows]
