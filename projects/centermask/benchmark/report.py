"""What was measured, as tables to read and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from centermask.benchmark.calibrated_boxes import COCO_SHARES
from centermask.benchmark.models import short_name
from centermask.benchmark.stages import STAGES

NOT_SEEN = '?'
WHY_NOT_SEEN = "operators and memory are seen where torch runs them one by one, not an exported or compiled model's own"


def tables(measured: Mapping[str, Any]) -> str:
    """Return Markdown tables of what :func:`~centermask.benchmark.comparison.compare` measured."""
    models = measured['models']
    peak = ', '.join(f'{value / 1e9:.0f} in {name}' for name, value in measured['peak'].items())
    masks = ' and '.join(dict.fromkeys(model['masks'] for model in models))
    sizes = ', '.join(dict.fromkeys(f'{height}×{width}' for height, width in measured['pictures']))
    lines = [
        f'{measured["date"]}, {measured["machine"]}, torch {measured["torch"]}. One picture at a time ({sizes} '
        f'before it is resized), from its pixels to full-size masks ({masks}); median of {measured["rounds"]} '
        f'interleaved rounds. Peak of the machine in GFLOP/s: {peak}.',
        '',
        f'    {measured["command"]}',
        '',
        *_table(('model', 'way', 'input', 'ms', 'quartiles', 'ratio'), (_times(model) for model in models)),
        '',
    ]
    if any('flops' in model for model in models):
        of_costs = (
            *('model', 'way', 'params (M)', 'GFLOPs', 'share of peak', 'MiB'),
            *('operator calls', 'without pasting', 'host waits', 'without pasting'),
        )
        lines += [*_table(of_costs, (_costs(model) for model in models)), '']
        if any('memory' not in model for model in models):
            lines += [f'{NOT_SEEN}: {WHY_NOT_SEEN}.', '']
    of_found = (
        *('model', 'scores that pass', 'boxes into NMS', 'detections', 'median size'),
        f'small, medium, large (COCO: {_shares(COCO_SHARES)})',
    )
    shipped = {model['config']: model for model in reversed(models)}
    lines += [*_table(of_found, (_found(model) for model in reversed(shipped.values()))), '']
    if any('stages' in model for model in models):
        of_stages = ('ms of', 'way', *STAGES, 'beside network')
        lines += [*_table(of_stages, (_stages(model) for model in models if 'stages' in model)), '']
    if measured['training']:
        of_training = (
            *('a training step of', 'images', 'input', 'ms', 'quartiles', 'ratio', 'positive RoIs an image'),
            *("loader at the config's own size, images/s: on a core", 'on 8'),
        )
        lines += [*_table(of_training, (_training(entry) for entry in measured['training'])), '']
    return '\n'.join(lines)


def _table(names: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    lines = [names, ['---'] * min(2, len(names)) + ['---:'] * (len(names) - 2), *rows]
    return [f'| {" | ".join(line)} |' for line in lines]


def _names(model: Mapping[str, Any]) -> tuple[str, str]:
    return short_name(model['config']), model['way']


def _training(entry: Mapping[str, Any]) -> Sequence[str]:
    size, rate, positives = '×'.join(map(str, entry['input'])), entry['loader images/s/core'], entry['positive RoIs']
    return (
        *(short_name(entry['config']), f'{entry["batch size"]}', size),
        *(f'{entry["ms"]:.0f}', _quartiles(entry), f'{entry["ratio"]:.2f}'),
        NOT_SEEN if positives is None else f'{positives:.1f}',
        *(f'{rate:.0f}', f'{8 * rate:.0f}'),
    )


def _quartiles(entry: Mapping[str, Any]) -> str:
    return ' to '.join(f'{value:.0f}' for value in entry['quartiles'])


def _times(model: Mapping[str, Any]) -> Sequence[str]:
    size = '×'.join(map(str, model['input']))
    return (*_names(model), size, f'{model["ms"]:.0f}', _quartiles(model), f'{model["ratio"]:.2f}')


def _costs(model: Mapping[str, Any]) -> Sequence[str]:
    def told(key: str, unit: float = 1, form: str = '.0f') -> str:
        return f'{model[key] / unit:{form}}' if key in model else NOT_SEEN

    def counts(kind: str) -> tuple[str, str]:
        if kind not in model:
            return NOT_SEEN, NOT_SEEN
        return f'{model[kind]}', f'{model[kind] - model[f"{kind} of pasting"]}'

    return (
        *_names(model),
        told('parameters', 1e6, '.1f'),
        told('flops', 1e9, '.1f'),
        told('share of peak', 1, '.2f'),
        told('memory', 2**20),
        *(cell for kind in ('calls', 'waits') for cell in counts(kind)),
    )


def _found(model: Mapping[str, Any]) -> Sequence[str]:
    counts = (f'{model[key]:.0f}' for key in ('candidates', 'into_nms', 'detections', 'object_size'))
    return (short_name(model['config']), *counts, _shares(model['shares']))


def _shares(shares: Sequence[float]) -> str:
    return ', '.join(f'{share:.0%}' for share in shares)


def _stages(model: Mapping[str, Any]) -> Sequence[str]:
    return (
        *_names(model),
        *(f'{model["stages"][stage]:.1f}' for stage in STAGES),
        f'{model["beside network"]:.1%}',
    )
