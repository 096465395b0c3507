"""Markdown tables of a benchmark's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from centermask.benchmark.models import short_name
from centermask.benchmark.stages import STAGES

UNKNOWN = '?'
WHY_UNKNOWN = 'operators are visible where torch runs them one by one, not in exported models'


def _number(value: float | None, form: str = '.0f', unit: float = 1) -> str:
    return UNKNOWN if value is None else f'{value / unit:{form}}'


def _without_pasting(facts: Mapping, key: str) -> str:
    return _number(facts[key] - facts[f'{key} of pasting'] if key in facts else None)


# Columns of the tables: title and cell.
Columns = dict[str, Callable[[Mapping[str, Any]], str]]
NAMES: Columns = {'model': lambda m: short_name(m['config']), 'variant': lambda m: m['variant']}
TIMES: Columns = {
    'input': lambda m: '×'.join(map(str, m['input'])),
    'ms': lambda m: _number(m['ms']),
    'quartiles': lambda m: ' to '.join(map(_number, m['quartiles'])),
    'ratio': lambda m: _number(m['ratio'], '.2f'),
}
DETECTIONS: Columns = {
    'candidates': lambda m: _number(m['candidates']),
    'detections': lambda m: _number(m['detections']),
}
COSTS: Columns = {
    'params (M)': lambda m: _number(m['parameters'], '.1f', 1e6),
    'GFLOPs': lambda m: _number(m['flops'], '.1f', 1e9),
    'peak ratio': lambda m: _number(m['peak ratio'], '.2f'),
    'operator calls': lambda m: _number(m.get('calls')),
    'calls without pasting': lambda m: _without_pasting(m, 'calls'),
    'host waits': lambda m: _number(m.get('waits')),
    'waits without pasting': lambda m: _without_pasting(m, 'waits'),
}
STAGE_TIMES: Columns = {stage: lambda m, stage=stage: _number(m['stages'][stage], '.1f') for stage in STAGES}  # type: ignore[misc]
STAGE_TIMES['beside network'] = lambda m: f'{m["beside network"]:.1%}'
TRAINING: Columns = {
    'training step of': NAMES['model'],
    'images': lambda m: _number(m['batch size']),
    **TIMES,
    'positive RoIs an image': lambda m: _number(m['positive RoIs'], '.1f'),
}


def _table(columns: Columns, rows: Sequence[Mapping]) -> str:
    if not rows:
        return ''
    lines = [[*columns], ['---', *['---:'] * (len(columns) - 1)]]
    lines += [[cell(row) for cell in columns.values()] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def tables(results: Mapping[str, Any]) -> str:
    """Return Markdown tables of what :func:`~centermask.benchmark.comparison.compare` returned."""
    models = results['models']
    counted = [model for model in models if 'flops' in model]
    peak = ', '.join(f'{value / 1e9:.0f} in {name}' for name, value in results['peak'].items())
    masks = ' and '.join(dict.fromkeys(model['masks'] for model in models))
    sizes = ', '.join(dict.fromkeys(f'{height}×{width}' for height, width in results['images']))
    parts = [
        f'{results["date"]}, {results["machine"]}, torch {results["torch"]}. One image at a time ({sizes} before it is '
        f'resized), from its pixels to full-size masks ({masks}); median of {results["rounds"]} interleaved rounds. '
        f'Peak of the machine in GFLOP/s: {peak}.\n',
        f'    {results["command"]}\n',
        _table(NAMES | TIMES | DETECTIONS, models),
        _table(NAMES | COSTS, counted),
        f'{UNKNOWN}: {WHY_UNKNOWN}.\n' if any('calls' not in model for model in counted) else '',
        _table(NAMES | STAGE_TIMES, [model for model in models if 'stages' in model]),
        _table(TRAINING, results['training']),
    ]
    return '\n'.join(filter(None, parts))
