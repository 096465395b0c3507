"""Checks of what a config hands to a module: a wrong value gets one sentence, before torch stumbles on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def one_of(owner: str, name: str, value: Any, choices: Sequence) -> None:
    """Raise a :class:`ValueError` unless ``value`` is one of ``choices``."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        known = ', '.join(map(repr, choices[:-1])) + f' or {choices[-1]!r}'
        raise ValueError(f"{owner}'s {name} is {known}, not {value!r}")


def flags(owner: str, values: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` unless every value is True or False: ``'False'`` would count as True."""
    for name, value in values.items():
        one_of(owner, name, value, (True, False))


def whole_numbers(owner: str, values: Mapping[str, Any], least: int = 1, most: int | None = None) -> None:
    """Raise a :class:`ValueError` unless every value is a whole number from ``least`` to ``most``."""
    for name, value in values.items():
        if not is_whole(value) or value < least or (most is not None and value > most):
            upto = 'up' if most is None else f'to {most}'
            raise ValueError(f"{owner}'s {name} is a whole number from {least} {upto}, not {value!r}")


def is_whole(value: Any) -> bool:
    """Whether this is an ``int`` that is no ``bool``."""
    return isinstance(value, int) and not isinstance(value, bool)


def given(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the named arguments that are there: a base class has defaults for the others."""
    return {name: values[name] for name in names if name in values}
