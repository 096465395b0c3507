"""Errors for the user: a command ends with one sentence and an exit code instead of a traceback."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Input that can't be used. Commands exit with code 2.

    The message is one sentence that names the file, key or option and what to do.
    """

    exit_code = 2


class RunError(Exception):
    """Failure of a run that has started. The message is as for :class:`InputError`; commands exit with code 1."""

    exit_code = 1


def one_line(error: Exception) -> str:
    """Return the sentence of an error, also of one raised in a data loader's worker.

    torch raises that error again, with the worker's traceback before its message.
    """
    message = str(error)
    if message.startswith('Caught '):
        return message.rpartition(f'{type(error).__module__}.{type(error).__qualname__}: ')[2].strip()
    return message


def find_user_error(error: BaseException | None) -> InputError | RunError | None:
    """Return the package's own error among an error and its causes, None if there is none."""
    while error is not None and not isinstance(error, InputError | RunError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def config_errors(source: str | None, part: str = 'model') -> Iterator[None]:
    """Turn an error while a part of a config is built into one sentence.

    Args:
        source: the config's file.
        part: the key that is built, for the sentence.

    Raises:
        InputError: a class, an argument or a value in the config can't be used.
    """
    try:
        yield
    except OSError:  # of the system, not of the config
        raise
    except Exception as error:
        if known := find_user_error(error):
            raise known from error
        why = re.sub(r'( is not in the .+? registry)\..*', r'\1', _describe(error)).rstrip('.')
        raise InputError(f"The {part} of {source or 'the config'} can't be built: {why}.") from error


def _describe(error: Exception) -> str:
    """Return an error's message on one line; for one of less than two words, also the source line that raised it."""
    text = ' '.join(str(error.args[0] if error.args else '').split())
    if ' ' in text:
        return text
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    return f'{error!r} at "{linecache.getline(frame.f_code.co_filename, line).strip()}"'
