"""Annotation files: each fault is named with its file, entry and field, and no run begins."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from centermask.datasets.coco_annotations import CocoReader, Kind, read_json
from centermask.utils.errors import InputError

HUGE = 10**400
MISSING = object()
FIELDS: list[tuple[str, str, Any]] = [
    ('images', 'file_name', '../a.png'),
    ('images', 'width', MISSING),
    ('images', 'height', HUGE),
    ('annotations', 'image_id', {}),
    ('annotations', 'bbox', [10, 10, math.nan, 20]),
    ('annotations', 'area', '400'),
]


def _dump(content: Any) -> str:
    # Python itself writes no number of this many digits.
    return json.dumps(content).replace(str(HUGE), '1' + 400 * '0')


@pytest.mark.parametrize(('key', 'field', 'value'), FIELDS, ids=[f'{k}-{f}-{i}' for i, (k, f, _) in enumerate(FIELDS)])
def test_a_field(
    key: str, field: str, value: Any, annotations: dict, config: Path, data: Path, outcome: Callable, tmp_path: Path
) -> None:
    if value is MISSING:
        del annotations[key][0][field]
    else:
        annotations[key][0][field] = value
    (data / 'annotations.json').write_text(_dump(annotations))
    words = f'entry 0 of "{key}" has no valid "{field}"'
    ended = outcome('train', config, '--work-dir', tmp_path / 'run')
    assert ended.refused(str(data / 'annotations.json'), words)


FILES: dict[str, tuple[Callable[[dict], str | bytes], str]] = {  # content by the proper one, words of the sentence
    'truncated': (lambda proper: json.dumps(proper)[:-20], 'is not valid JSON'),
    'binary': (lambda _: b'\x89PNG\xff\xfe\x00', "is not valid JSON: 'utf-8' codec"),
    'a list': (lambda proper: json.dumps([proper]), 'it must be an object'),
    'nested deep': (lambda _: '[' * 100_000 + ']' * 100_000, 'is not valid JSON: maximum recursion depth'),
    'a number of 5000 digits': (lambda _: '{"images": ' + '9' * 5000 + '}', 'is not valid JSON: Exceeds the limit'),
    'no images': (lambda proper: json.dumps({**proper, 'images': {}}), 'it has no list "images"'),
    'no categories': (lambda proper: json.dumps({**proper, 'categories': []}), 'lists no categories'),
    'ids twice': (
        lambda proper: json.dumps({**proper, 'images': proper['images'] * 2}),
        'entry 1 of "images" has the id 1, which another entry has too',
    ),
    'an id as number and as text': (
        lambda proper: json.dumps({**proper, 'categories': [*proper['categories'], {'id': '1', 'name': 'another'}]}),
        'has the id 1, which another entry has too',
    ),
    'names twice': (
        lambda proper: json.dumps({**proper, 'categories': [*proper['categories'], {'id': 2, 'name': 'thing'}]}),
        'has the name thing, which another entry has too',
    ),
    'nothing usable': (lambda proper: json.dumps({**proper, 'images': []}), 'leaves nothing to work on'),
}


@pytest.mark.parametrize('case', FILES)
def test_a_file(case: str, annotations: dict, config: Path, data: Path, outcome: Callable, tmp_path: Path) -> None:
    edit, words = FILES[case]
    file = data / 'annotations.json'
    content = edit(annotations)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(file), words)


SEGMENTATIONS = {  # pycocotools would allocate gigabytes or write past its memory
    'huge numbers': ([[HUGE, 0, 1, 1, 2, 2]], Kind.POLYGON),
    'polygon far away': ([[0, 0, 1e12, 0, 1e12, 1e12]], Kind.POLYGON),
    'RLE too long': ({'size': [40, 60], 'counts': [0, 10**15]}, Kind.RLE),
    'RLE of another size': ({'size': [10**9, 10**9], 'counts': [0, 10**18]}, Kind.RLE),
    'text without end': ({'size': [40, 60], 'counts': 'o' * 1_000_000}, Kind.RLE),
}


@pytest.mark.parametrize('case', SEGMENTATIONS)
def test_a_segmentation_that_would_crash(case: str, annotations: dict, data: Path) -> None:
    annotations['annotations'][0]['segmentation'], kind = SEGMENTATIONS[case]
    (data / 'annotations.json').write_text(_dump(annotations))
    reader = CocoReader(read_json(data / 'annotations.json'), 'annotations.json')
    assert [finding.kind for finding in reader.findings] == [kind]
    assert reader.content['annotations'][0]['segmentation'] == []


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, 2, 40, 60, 10**18, -1]))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(['size', 'counts', 'a']), inner),
    max_leaves=12,
)
ENTRIES = {
    'categories': ('id', 'name', 'supercategory'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore', 'segmentation'),
}


@settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 150)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(
        st.sampled_from(sorted(ENTRIES)).flatmap(
            lambda key: st.tuples(st.just(key), st.sampled_from(ENTRIES[key]), JSON)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_content(changes: list[tuple[str, str, Any]]) -> None:
    """Whatever a field holds, the reader reads it, leaves it out, or raises one sentence."""
    content: dict[str, list[dict]] = {
        'categories': [{'id': 1, 'name': 'thing'}],
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 60, 'height': 40}],
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'segmentation': [[1, 1, 9, 1, 9, 9]]}
            for i in (1, 2)
        ],
    }
    for key, field, value in changes:
        content[key][0][field] = value
    content = json.loads(json.dumps(content))
    try:
        reader = CocoReader(content, 'a.json', compare_boxes=True)
    except InputError as error:
        assert '\n' not in str(error) and 'a.json' in str(error)
        return
    if len(reader.content['annotations']) < 2:
        assert reader.findings
    # Reading the result again finds nothing that training refuses.
    plain = json.dumps(reader.content, default=lambda v: v.decode() if isinstance(v, bytes) else v.tolist())
    kinds = {finding.kind for finding in CocoReader(json.loads(plain), 'b.json').findings}
    assert kinds <= {Kind.NOTHING, Kind.BOX_UNUSABLE, Kind.NO_OUTLINE}
