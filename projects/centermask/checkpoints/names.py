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
        """Return the values under which the template is ``name``, None if there are none."""
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
        """Return the name that the template is under these values."""

        def value(found: re.Match) -> str:
            factor, field, offset = found.groups()
            here = values[field]
            return here if isinstance(here, str) else str(int(factor or 1) * here + int(offset or 0))

        return _FIELD.sub(value, self.text)

    def __str__(self) -> str:
        return self.text


class Row(NamedTuple):
    """One tensor, or several of one kind, in both layouts."""

    theirs: Template
    ours: Template


class NameTable:
    """Rows of templates, tried in their order.

    Args:
        rows: pairs of a template of their layout and one of ours, with the same letters.
    """

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.rows = [Row(Template(theirs), Template(ours)) for theirs, ours in rows]
        self._any = re.compile('|'.join(row.theirs.pattern.pattern for row in self.rows))

    def to_ours(self, name: str) -> tuple[str, Row] | None:
        """Return our name of a tensor of theirs and the row that says so, None if no row does."""
        if self._any.fullmatch(name) is None:  # most names are asked about with many tables and beginnings
            return None
        for row in self.rows:
            values = row.theirs.match(name)
            if values is not None:
                return row.ours.fill(values), row
        return None

    def to_theirs(self, name: str) -> str | None:
        """Return their name of a tensor of ours, None if no row has it."""
        for row in self.rows:
            values = row.ours.match(name)
            if values is not None:
                return row.theirs.fill(values)
        return None


def under(theirs: str, ours: str, rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows with something before each name, in their layout and in ours."""
    return [(theirs + row[0], ours + row[1]) for row in rows]
