"""What MMEngine wrote down while a run trained."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from centermask.utils.errors import InputError


@dataclass
class History:
    """Scalars of a run by iteration.

    Attributes:
        training: iteration -> losses, learning rate and times, averaged over the logging window.
        validation: iteration -> metrics.
    """

    training: dict[int, dict[str, float]] = field(default_factory=dict)
    validation: dict[int, dict[str, float]] = field(default_factory=dict)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Iterations and values at which a scalar was written."""
        table = self.training if any(name in record for record in self.training.values()) else self.validation
        steps = sorted(step for step, record in table.items() if name in record)
        return steps, [table[step][name] for step in steps]

    @property
    def losses(self) -> list[str]:
        """Names of the losses in the order of the log, their sum (``loss``) left out."""
        names = dict.fromkeys(name for record in self.training.values() for name in record)
        return [name for name in names if name.startswith('loss_')]


def read_history(work_dir: Path) -> History:
    """Merge the scalars of every start of a run; what a resumed run did again replaces what it did before.

    Raises:
        InputError: the folder holds no scalars, or a file of them isn't MMEngine's.
    """
    # The folders' names are the times of the starts.
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    if not files:
        raise InputError(f'{work_dir} holds no */vis_data/scalars.json: name the work dir of a training run.')
    history = History()
    for path in files:
        _add(history, path)
    return history


def _add(history: History, path: Path) -> None:
    lines = path.read_text().splitlines()
    latest = None
    missed: list[tuple[int, dict]] = []  # a validation that the run began with; it is of what was trained before
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = int(record.pop('step'))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if number == len(lines) > 1:
                break  # The run was stopped while it wrote this line.
            raise InputError(f'{path}, line {number}, is no record of MMEngine: remove the file.') from error
        if 'loss' in record:
            if latest is None:
                for table in (history.training, history.validation):
                    for later in [old for old in table if old >= step]:
                        del table[later]
                _add_validations(history, missed)
            history.training[step] = record
            latest = step
        elif latest is None:
            missed.append((step, record))
        else:
            _add_validations(history, [(step, record)])
    if latest is None:
        _add_validations(history, missed)


def _add_validations(history: History, records: list[tuple[int, dict]]) -> None:
    """Add validations of what has been trained by now: their steps are epochs in some configs, and fewer."""
    for step, record in records:
        history.validation[max(step, *history.training, 0)] = record
