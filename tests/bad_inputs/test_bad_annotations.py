"""Annotation files: each fault is named with its file, entry and field, and no run begins."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmengine.config import Config

from centermask.datasets.annotations import NEEDED, CocoAnnotations, read_classes
from centermask.utils.errors import InputError

HUGE = 10**400
MISSING = object()
FIELDS: list[tuple[str, str, Any]] = [
    *[(key, field, MISSING) for key, fields in NEEDED.items() for field in fields],
    ('images', 'width', 0),
    ('images', 'width', -60),
    ('images', 'height', math.nan),
    ('images', 'height', math.inf),
    ('images', 'width', HUGE),
    ('images', 'width', 10**6),
    ('images', 'height', '40'),
    ('images', 'id', math.nan),
    ('images', 'id', [1]),
    ('images', 'file_name', 7),
    ('images', 'file_name', ''),
    ('images', 'file_name', '../a.png'),
    ('images', 'file_name', 'a/../../a.png'),
    ('images', 'file_name', '/etc/passwd'),
    ('images', 'file_name', 'a\0.png'),
    ('images', 'file_name', 'a' * 300 + '.png'),
    ('images', 'file_name', 'a/' * 2500 + 'a.png'),
    ('images', 'file_name', '\ud800.png'),
    ('categories', 'name', None),
    ('categories', 'name', ''),
    ('categories', 'id', True),
    ('annotations', 'bbox', [1, 2, 3]),
    ('annotations', 'bbox', [10, 10, math.nan, 20]),
    ('annotations', 'bbox', [10, 10, math.inf, 20]),
    ('annotations', 'bbox', [HUGE, 10, 20, 20]),
    ('annotations', 'bbox', [10, 10, '20', 20]),
    ('annotations', 'bbox', {'x': 1}),
    ('annotations', 'image_id', {}),
    ('annotations', 'category_id', None),
    ('annotations', 'iscrowd', 'no'),
    ('annotations', 'iscrowd', math.nan),
    ('annotations', 'area', '400'),
    ('annotations', 'area', HUGE),
]


def _spoilt(annotations: dict, key: str, field: str, value: Any) -> str:
    if value is MISSING:
        del annotations[key][0][field]
    else:
        annotations[key][0][field] = value
    # Python itself writes no number of this many digits.
    return json.dumps(annotations).replace(str(HUGE), '1' + 400 * '0')


def _load(config: Path) -> str:
    """Everything that a training reads; '' or what went wrong."""
    try:
        data = DATASETS.build(Config.fromfile(config).train_dataloader.dataset)
        data[0]
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return ''


@pytest.mark.parametrize(('key', 'field', 'value'), FIELDS, ids=[f'{k}-{f}-{i}' for i, (k, f, _) in enumerate(FIELDS)])
def test_a_field(
    key: str,
    field: str,
    value: Any,
    annotations: dict,
    config: Path,
    data: Path,
    outcome: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused with the guard; without it the data load with nonsense in them, or there is a traceback.

    Without it a training would also fail at an image that it reads, perhaps after hours, or read one of somebody else.
    """
    file = data / 'annotations.json'
    file.write_text(_spoilt(annotations, key, field, value))
    words = f'entry 0 of "{key}" has no valid "{field}"'
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(file), words)
    shutil.copytree(data / 'images', data / 'images/a')
    shutil.copy(data / 'images/a.png', data / 'a.png')  # of somebody else
    monkeypatch.setattr('centermask.datasets.annotations._valid', lambda field, value: True)
    monkeypatch.setattr('centermask.datasets.coco.check_images_exist', lambda *args: None)
    if field == 'name' and value is not MISSING:
        assert read_classes(str(file)) == (value,)
    else:
        assert not _load(config).startswith('InputError')


def _more(annotations: dict, key: str) -> str:
    annotations[key] *= 2
    return json.dumps(annotations)


def _another(annotations: dict, key: str) -> str:
    annotations[key].append({**annotations[key][0], 'id': 'a', 'name': 'another'})
    return json.dumps(annotations)


FILES: dict[str, tuple[Callable[[dict], str | bytes], str]] = {  # content by the proper one, words of the sentence
    'nothing': (lambda _: '', 'is not valid JSON'),
    'truncated': (lambda proper: json.dumps(proper)[:-20], 'is not valid JSON'),
    'binary': (lambda _: b'\x89PNG\xff\xfe\x00', 'it is not text in UTF-8'),
    'a list': (lambda proper: json.dumps([proper]), 'it must hold an object'),
    'nested deep': (lambda _: '[' * 100_000 + ']' * 100_000, 'lists nested too deep'),
    'objects nested deep': (lambda _: '{"a":' * 100_000, 'lists nested too deep'),
    'a number of 5000 digits': (lambda _: '{"images": ' + '9' * 5000 + '}', 'a number of too many digits'),
    'no images': (lambda proper: json.dumps({**proper, 'images': {}}), 'it has no list "images"'),
    'no categories': (lambda proper: json.dumps({**proper, 'categories': []}), 'lists no categories'),
    'entries of text': (lambda proper: json.dumps({**proper, 'annotations': ['a']}), 'entry 0 of "annotations"'),
    'image ids twice': (lambda proper: _more(proper, 'images'), 'two "images" with the id 1'),
    'category ids twice': (lambda proper: _more(proper, 'categories'), 'two "categories" with the id 1'),
    'annotation ids twice': (lambda proper: _more(proper, 'annotations'), 'two "annotations" with the id 1'),
    'category ids of two kinds': (
        lambda proper: _another(proper, 'categories'),
        'ids of "categories" that are numbers and',
    ),
    'image ids of two kinds': (
        lambda proper: _another(proper, 'images'),
        'ids of "images" that are numbers and others',
    ),
    'nothing usable': (lambda proper: json.dumps({**proper, 'images': []}), 'leaves nothing to work on'),
}


@pytest.mark.parametrize('case', FILES)
def test_a_file(
    case: str,
    annotations: dict,
    config: Path,
    data: Path,
    outcome: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the guard, MMDetection's own reader, which it extends, fails in other words or not at all."""
    make, words = FILES[case]
    file = data / 'annotations.json'
    content = make(annotations)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert outcome('train', config, '--work-dir', tmp_path / 'run').refused(str(file), words)
    unguarded = config.read_text().replace('CenterMaskCocoDataset', 'CocoDataset')
    config.write_text(unguarded)
    assert not _load(config).startswith('InputError')


SEGMENTATIONS = {
    'polygon far away': [[0, 0, 1e12, 0, 1e12, 1e12]],
    'huge numbers': [[HUGE, 0, 1, 1, 2, 2]],
    'no numbers': [['a', 'b', 'c', 'd', 'e', 'f']],
    'RLE too long': {'size': [40, 60], 'counts': [0, 10**15]},
    'RLE of another size': {'size': [10**9, 10**9], 'counts': [10**18, 0]},
    'text without end': {'size': [40, 60], 'counts': 'o' * 1_000_000},
    'surrogates': {'size': [40, 60], 'counts': '\ud800'},
}
DECODE = """
import json, resource, sys
import pycocotools.mask as masks
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
found = json.load(sys.stdin)['annotations'][0]['segmentation']
if isinstance(found, list) or isinstance(found['counts'], list):
    found = masks.merge(masks.frPyObjects(found if isinstance(found, list) else [found], 40, 60))
masks.decode(found)
"""


@pytest.mark.parametrize('case', SEGMENTATIONS)
def test_a_segmentation_that_would_crash(case: str, annotations: dict, data: Path) -> None:
    """pycocotools takes gigabytes, or writes past its memory: what can't be used is left out and counted."""
    annotations['annotations'][0]['segmentation'] = SEGMENTATIONS[case]
    text = json.dumps(annotations).replace(str(HUGE), '1' + 400 * '0')
    (data / 'annotations.json').write_text(text)
    assert [ids for ids in CocoAnnotations(str(data / 'annotations.json')).unusable.values()] == [[1]]
    unguarded = subprocess.run([sys.executable, '-c', DECODE], input=text, text=True, capture_output=True)
    assert unguarded.returncode not in (0, 2)


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, 2, 40, 60, 10**18, -1]))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(['size', 'counts', 'a']), inner),
    max_leaves=12,
)
ENTRIES = {
    'categories': ('id', 'name', 'supercategory'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'),
}


@settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 300)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    spoilt=st.lists(
        st.sampled_from(sorted(ENTRIES)).flatmap(
            lambda key: st.tuples(st.just(key), st.sampled_from(ENTRIES[key]), JSON)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_content(spoilt: list[tuple[str, str, Any]], tmp_path: Path) -> None:
    """Whatever a field holds, the reader reads it, leaves it out, or says in one sentence why it can't."""
    content: dict[str, list[dict]] = {
        'categories': [{'id': 1, 'name': 'thing'}],
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 60, 'height': 40}],
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'segmentation': [[1, 1, 9, 1, 9, 9]]}
            for i in (1, 2)
        ],
    }
    for key, field, value in spoilt:
        content[key][0][field] = value
    file = tmp_path / 'a.json'
    file.write_text(json.dumps(content))
    try:
        read = CocoAnnotations(str(file))
    except InputError as error:
        assert '\n' not in str(error) and str(file) in str(error)
    else:
        assert {annotation['id'] for annotation in read.dataset['annotations']} | {
            identity for ids in read.unusable.values() for identity in ids
        } == {annotation['id'] for annotation in content['annotations']}
