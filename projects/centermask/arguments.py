"""Checks of what a config hands to a module: a wrong value gets one sentence, before torch stumbles on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def refuse(owner: str, name: str, what: str, value: Any) -> None:
    """Raise the :class:`ValueError` that all checks of arguments end in.

    Args:
        owner: the class of which it is an argument.
        name: the argument.
        what: what it is or they are, such as ``'is a number above 0'``.
        value: what was given.
    """
    raise ValueError(f"{owner}'s {name} {what}, not {value!r}")


def one_of(owner: str, name: str, value: Any, choices: Sequence) -> None:
    """Raise a :class:`ValueError` unless ``value`` is one of ``choices``."""
    if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
        known = ', '.join(map(repr, choices[:-1])) + f' or {choices[-1]!r}'
        refuse(owner, name, f'is {known}', value)


def flags(owner: str, values: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` unless every value is True or False: ``'False'`` would count as True."""
    for name, value in values.items():
        one_of(owner, name, value, (True, False))


def whole_numbers(owner: str, values: Mapping[str, Any], least: int = 1, most: int | None = None) -> None:
    """Raise a :class:`ValueError` unless every value is a whole number from ``least`` to ``most``."""
    for name, value in values.items():
        if not is_whole(value) or value < least or (most is not None and value > most):
            upto = 'up' if most is None else f'to {most}'
            refuse(owner, name, f'is a whole number from {least} {upto}', value)


def shares(owner: str, values: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` unless every value is a number from 0 to 1."""
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            refuse(owner, name, 'is a number from 0 to 1', value)


def typed(owner: str, values: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` unless every value is None or a config that names its class by ``type``."""
    for name, value in values.items():
        if value is not None and not (isinstance(value, dict) and value.get('type')):
            refuse(owner, name, 'is a dict with a type', value)


def dicts(owner: str, values: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` unless every value is None or a dict."""
    for name, value in values.items():
        if value is not None and not isinstance(value, dict):
            refuse(owner, name, 'is a dict', value)


def initialisation(owner: str, init_cfg: Any) -> None:
    """Raise a :class:`ValueError` unless this is None, a config with a ``type``, or a list of such."""
    if isinstance(init_cfg, list | tuple):
        typed(owner, {f'init_cfg.{i}': cfg for i, cfg in enumerate(init_cfg)})
    else:
        typed(owner, dict(init_cfg=init_cfg))


def is_whole(value: Any) -> bool:
    """Whether this is an ``int`` that is no ``bool``."""
    return isinstance(value, int) and not isinstance(value, bool)


def given(values: Mapping[str, Any] | None, *names: str, within: str = '') -> dict[str, Any]:
    """Those of the named arguments that are there, as a base class has defaults for the others.

    Args:
        values: the arguments.
        names: of those wanted.
        within: the argument that they are entries of, for their names in the result.
    """
    there = values or {}
    return {f'{within}.{name}' if within else name: there[name] for name in names if name in there}
