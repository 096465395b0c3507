"""The two ways in which a command ends early, each with one sentence instead of a traceback."""

from __future__ import annotations


class InputError(Exception):
    """What the user gave can't be used.

    The message is one sentence that names the file, key or option and says what to do. Commands exit with code 2.
    """

    exit_code = 2


class ClassCountError(InputError):
    """A model and the config or the data tell different numbers of classes apart.

    Args:
        message: as of every :class:`InputError`.
        of_model, wanted: the two numbers.
    """

    def __init__(self, message: str, of_model: int, wanted: int) -> None:
        super().__init__(message)
        self.of_model = of_model
        self.wanted = wanted


class RunError(Exception):
    """A run that began well can't go on. Same form of message as :class:`InputError`; commands exit with code 1."""

    exit_code = 1


def one_line(error: Exception) -> str:
    """The one sentence of an error, also of one raised in a data loader's worker.

    torch raises that error again with the worker's traceback as its message; the sentence ends it.
    """
    message = str(error)
    if message.startswith('Caught '):
        return message.rpartition(f'{type(error).__module__}.{type(error).__qualname__}: ')[2].strip()
    return message


def find_user_error(error: BaseException | None) -> InputError | RunError | None:
    """The package's own error among an error and those that led to it."""
    while error is not None and not isinstance(error, InputError | RunError):
        error = error.__cause__ or error.__context__
    return error
