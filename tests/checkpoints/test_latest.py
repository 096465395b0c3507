"""The checkpoint that a training resumes from."""

import os
from pathlib import Path

import pytest
import torch

from centermask.checkpoints.latest import filename_pattern, find_latest, is_intact
from centermask.utils.errors import InputError


def _save(path: Path, seconds: int) -> Path:
    torch.save({'weights': torch.arange(1000)}, path)
    os.utime(path, (seconds, seconds))
    return path


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    times = path.stat().st_mtime
    if how == 'half':
        content = content[: len(content) // 2]
    elif how == 'zeros':  # as file systems leave it after a power failure
        content = bytearray(len(content))
    else:  # a bit of a tensor, which torch doesn't notice
        content[content.index(torch.arange(1000).numpy().tobytes()) + 4000] ^= 1
    path.write_bytes(content)
    os.utime(path, (times, times))


@pytest.mark.parametrize('how', ['half', 'zeros', 'bit'])
def test_skips_damaged_files(how: str, tmp_path: Path) -> None:
    first, second, third = (_save(tmp_path / f'iter_{i}.pth', i) for i in (1, 2, 3))
    assert find_latest(tmp_path) == (third, [])
    _damage(third, how)
    assert not is_intact(third)
    assert find_latest(tmp_path) == (second, [third])
    _damage(second, how)
    _damage(first, how)
    with pytest.raises(InputError, match=r'is intact \(iter_3.pth, iter_2.pth, iter_1.pth\): name one by --resume CH'):
        find_latest(tmp_path)


def test_the_latest_by_time(tmp_path: Path) -> None:
    """The latest file counts, not the highest iteration of an earlier training."""
    _save(tmp_path / 'iter_900.pth', 5)
    latest = _save(tmp_path / 'iter_10.pth', 6)
    _save(tmp_path / 'best_ap_iter_11.pth', 7)
    assert find_latest(tmp_path) == (latest, [])


def test_last_checkpoint(tmp_path: Path) -> None:
    """The entry may name a file in another folder, or one that was moved with its folder."""
    assert find_latest(tmp_path / 'none') == (None, [])
    (tmp_path / 'there').mkdir()
    path = _save(tmp_path / 'there/mine.pth', 3)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    assert find_latest(tmp_path) == (path, [])
    (tmp_path / 'there/last_checkpoint').write_text('/elsewhere/mine.pth')
    assert find_latest(tmp_path / 'there') == (path, [])
    (tmp_path / 'last_checkpoint').write_bytes(bytes(20))
    assert find_latest(tmp_path) == (None, [])


def test_names_by_a_template(tmp_path: Path) -> None:
    path = _save(tmp_path / 'ckpt_000010.pth', 1)
    assert find_latest(tmp_path) == (None, [])
    assert find_latest(tmp_path, 'ckpt_{:06d}.pth') == (path, [])
    for template in ('latest.pth', '{}_{}.pth', '{a}.pth', '{'):
        with pytest.raises(ValueError, match='for the number of iterations, not'):
            filename_pattern(template)
