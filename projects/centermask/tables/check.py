"""Whether every row of the paper's tables has a config, and its model the paper's number of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from centermask.engine.configs import load_config
from centermask.tables.index import LITERATURE, METAFILE, NOT_MEASURED, TABLES, Row
from centermask.tables.measure import build, count_parameters
from centermask.utils.errors import InputError, RunError

PARAMETERS = 'Params (M)'
TOLERANCE = 0.1  # million parameters


def check(configs: Path, rows: list[Row], numbers: Iterable[int]) -> str:
    """Check the rows of some tables and return what was found, for people.

    Args:
        configs: the folder of configs.
        rows: of all tables.
        numbers: the tables to check.

    Raises:
        RunError: a row is missing or has no config; the model has another number of parameters than the index says; or
            one more than 0.1 M off the paper's without the index saying why, or saying so without need.
    """
    chosen = [row for row in rows if row.table in numbers]
    faults = []
    for number in numbers:
        listed = [row.number for row in chosen if row.table == number]
        missing = set(range(1, TABLES[number].rows + 1)) - set(listed)
        faults += [f'table {number} has no row {row} in {METAFILE}' for row in sorted(missing)]
        faults += [f'table {number} has row {row} twice' for row in sorted(set(listed)) if listed.count(row) > 1]
    counts: dict[str, int] = {}
    agree, known = 0, []
    for row in chosen:
        if row.config is None:
            if not LITERATURE.intersection(row.names.values()):
                faults.append(f'{row} has no config')
            continue
        try:
            if row.config not in counts:
                counts[row.config] = count_parameters(build(load_config(configs / f'{row.config}.py')))
        except InputError as error:
            faults.append(f'{row} has no config: {str(error).rstrip(".")}')
            continue
        count = counts[row.config]
        measured = row.measured.get('Parameters', NOT_MEASURED)
        if measured != count:
            faults.append(f'{row} has {count} parameters and {METAFILE} says {measured}')
        if PARAMETERS not in TABLES[row.table].figures:
            continue
        if PARAMETERS not in row.paper:
            faults.append(f"{row} lacks the paper's {PARAMETERS} in {METAFILE}")
            continue
        paper = float(row.paper[PARAMETERS])
        off = abs(count / 1e6 - paper) > TOLERANCE
        if off and row.differs:
            known.append(f'{row}: {count / 1e6:.1f} M, the paper says {paper} M; {row.differs}')
        elif off:
            faults.append(f'{row} has {count / 1e6:.2f} M parameters and the paper says {paper} M')
        elif row.differs:
            faults.append(f'{row} agrees with the paper and {METAFILE} says that it differs')
        else:
            agree += 1
    if faults:
        raise RunError(f'The tables are not in order: {"; ".join(faults)}.')
    configured = sum(row.config is not None for row in chosen)
    summary = (
        f'{len(chosen)} rows, {configured} with a config, {len(chosen) - configured} with figures of the literature; '
        f'{agree} counts of parameters within {TOLERANCE} M of the paper, {len(known)} known to differ'
    )
    return '\n'.join([summary, *known])
