"""Markdown tables of a benchmark's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from centermask.benchmark.models import short_name
from centermask.benchmark.predictions import COCO_AREA_RATIOS
from centermask.benchmark.stages import STAGES

UNKNOWN = '?'
WHY_UNKNOWN = 'operators and memory are visible where torch runs them one by one, not in exported or compiled models'


def _number(value: float | None, form: str = '.0f', unit: float = 1) -> str:
    return UNKNOWN if value is None else f'{value / unit:{form}}'


def _percent(values: Sequence[float]) -> str:
    return ', '.join(f'{value:.0%}' for value in values)


def _without_pasting(facts: Mapping, key: str) -> float | None:
    return facts[key] - facts[f'{key} of pasting'] if key in facts else None


# Columns of the tables: title and cell.
Columns = dict[str, Callable[[Mapping[str, Any]], str]]
NAMES: Columns = {'model': lambda m: short_name(m['config']), 'variant': lambda m: m['variant']}
TIMES: Columns = {
    'input': lambda m: '×'.join(map(str, m['input'])),
    'ms': lambda m: _number(m['ms']),
    'quartiles': lambda m: ' to '.join(map(_number, m['quartiles'])),
    'ratio': lambda m: _number(m['ratio'], '.2f'),
}
COSTS: Columns = {
    'params (M)': lambda m: _number(m['parameters'], '.1f', 1e6),
    'GFLOPs': lambda m: _number(m['flops'], '.1f', 1e9),
    'peak ratio': lambda m: _number(m['peak ratio'], '.2f'),
    'MiB': lambda m: _number(m.get('memory'), unit=2**20),
    'operator calls': lambda m: _number(m.get('calls')),
    'calls without pasting': lambda m: _number(_without_pasting(m, 'calls')),
    'host waits': lambda m: _number(m.get('waits')),
    'waits without pasting': lambda m: _number(_without_pasting(m, 'waits')),
}
DETECTIONS: Columns = {
    'candidates': lambda m: _number(m['candidates']),
    'boxes into NMS': lambda m: _number(m['into_nms']),
    'detections': lambda m: _number(m['detections']),
    'median size': lambda m: _number(m['object_size']),
    f'small, medium, large (COCO: {_percent(COCO_AREA_RATIOS)})': lambda m: _percent(m['area_ratios']),
}
STAGE_TIMES: Columns = {stage: lambda m, stage=stage: _number(m['stages'][stage], '.1f') for stage in STAGES}  # type: ignore[misc]
TRAINING: Columns = {
    'training step of': NAMES['model'],
    'images': lambda m: _number(m['batch size']),
    **TIMES,
    'positive RoIs an image': lambda m: _number(m['positive RoIs'], '.1f'),
    "loader at the config's own size, images/s and core": lambda m: _number(m['loader images/s/core']),
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
    peak = ', '.join(f'{value / 1e9:.0f} in {name}' for name, value in results['peak'].items())
    masks = ' and '.join(dict.fromkeys(model['masks'] for model in models))
    sizes = ', '.join(dict.fromkeys(f'{height}×{width}' for height, width in results['images']))
    counted = [model for model in models if 'flops' in model]
    parts = [
        f'{results["date"]}, {results["machine"]}, torch {results["torch"]}. One image at a time ({sizes} before it is '
        f'resized), from its pixels to full-size masks ({masks}); median of {results["rounds"]} interleaved rounds. '
        f'Peak of the machine in GFLOP/s: {peak}.\n',
        f'    {results["command"]}\n',
        _table(NAMES | TIMES, models),
        _table(NAMES | COSTS, counted),
        f'{UNKNOWN}: {WHY_UNKNOWN}.\n' if any('memory' not in model for model in counted) else '',
        _table({'model': NAMES['model']} | DETECTIONS, list({model['config']: model for model in models}.values())),
        _table(
            NAMES | STAGE_TIMES | {'beside network': lambda m: f'{m["beside network"]:.1%}'},
            [model for model in models if 'stages' in model],
        ),
        _table(TRAINING, results['training']),
    ]
    return '\n'.join(filter(None, parts))
