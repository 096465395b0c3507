"""Say what was found, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from centermask.datasets.annotations import some
from centermask.datasets.checking.check import SIZES, Check
from centermask.datasets.checking.findings import Level

HEADINGS = {
    Level.FAILS: 'A training would fail:',
    Level.LOSES: 'A training would lose objects:',
    Level.NOTE: 'Worth a look:',
}
NAMED = 4


def describe(check: Check, least: Level = Level.NOTE) -> str:
    """The tables: classes, levels, and everything wrong of at least a level."""
    return '\n'.join([*_classes(check), *_levels(check), '', *describe_findings(check, least)])


def describe_findings(check: Check, least: Level) -> list[str]:
    """A line for each kind, the worst first, with the first few by name."""
    lines = []
    for level in sorted(HEADINGS, reverse=True):
        grouped = check.by_kind(level)
        if grouped and level >= least:
            lines.append(HEADINGS[level])
            for kind, findings in grouped.items():
                objects = 'objects ' if findings[0].annotation is not None and not kind.startswith('images') else ''
                lines.append(f'{len(findings):8d}  {objects}{kind}: {some((f.what for f in findings), NAMED)}')
    return lines or ['Nothing is wrong.' if least == Level.NOTE else 'A training would lose no object.']


def _classes(check: Check) -> Iterator[str]:
    total: Counter = sum(check.objects.values(), Counter())
    looked_at = check.sampled or len(check.shown)
    of = f'{looked_at} of {len(check.shown)}' if check.sampled else f'{looked_at}'
    yield f'{check.ann_file}: {of} images, {check.empty_images} of them without objects, {check.crowds} crowds'
    yield ''
    width = max(map(len, ('all classes', *check.objects)))
    yield f'{"class":{width}}  {"objects":>8} {"images":>8}' + ''.join(f' {size:>8}' for size in SIZES)
    for name, sizes in (*check.objects.items(), ('all classes', total)):
        images = check.images_with[name] if name in check.objects else looked_at - check.empty_images
        counts = ''.join(f' {sizes[size]:8d}' for size in SIZES)
        yield f'{name:{width}}  {sizes.total():8d} {images:8d}{counts}'
    yield 'Small objects have less than 32² pixels of the original image, large ones 96² or more.'


def _levels(check: Check) -> Iterator[str]:
    count = check.levels.total()
    if count:
        yield ''
        shares = [
            f'P{stride.bit_length() - 1} {check.levels[i]} ({check.levels[i] / count:.0%})'
            for i, stride in enumerate(check.strides)
        ]
        yield f'Levels that masks are pooled from (Eq. 2): {", ".join(shares)}'
