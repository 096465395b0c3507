"""What npm may do instead of giving the package."""

from pathlib import Path

import pytest

from centermask.utils.errors import InputError
from centermask.web.runtime import fetch_runtime


@pytest.mark.parametrize(
    ('script', 'message'),
    [
        ('', "npm isn't installed"),
        ('echo "npm error network request failed" >&2; exit 1', r'fails \(npm error network request failed\)'),
        ('for option; do :; done; echo x > "${option#*=}/onnxruntime-web.tgz"', 'another file than the one published'),
    ],
    ids=['absent', 'without network', 'another package'],
)
def test_a_sentence_where_npm_fails(script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if script:
        (tmp_path / 'npm').write_text(f'#!/bin/sh\n{script}\n')
        (tmp_path / 'npm').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(InputError, match=message):
        fetch_runtime(tmp_path / 'onnxruntime')
    assert not (tmp_path / 'onnxruntime').exists()
