"""Which checkpoint a training resumes from."""

import os
from pathlib import Path

import pytest
import torch

from centermask.checkpoints.latest import find_newest, is_whole, numbered
from centermask.utils.errors import InputError


def _save(folder: Path, iterations: int, seconds: int) -> Path:
    path = folder / f'iter_{iterations}.pth'
    torch.save({'weights': torch.arange(1000)}, path)
    os.utime(path, (seconds, seconds))
    return path


def _spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    times = path.stat().st_mtime
    if how == 'half':
        content = content[: len(content) // 2]
    elif how == 'zeros':  # as file systems leave it after a power failure
        content = bytearray(len(content))
    elif how == 'empty':
        content.clear()
    else:  # a bit of a tensor, which torch doesn't notice
        content[content.index(torch.arange(1000).numpy().tobytes()) + 4000] ^= 1
    path.write_bytes(content)
    os.utime(path, (times, times))


@pytest.mark.parametrize('how', ['half', 'zeros', 'empty', 'bit'])
def test_damaged_ones_are_passed_over(how: str, tmp_path: Path) -> None:
    first, second, third = (_save(tmp_path, i, i) for i in (1, 2, 3))
    assert find_newest(tmp_path) == (third, [])
    _spoil(third, how)
    assert not is_whole(third)
    assert find_newest(tmp_path) == (second, [third])
    _spoil(second, how)
    assert find_newest(tmp_path) == (first, [third, second])
    _spoil(first, how)
    with pytest.raises(InputError, match=r'is whole \(iter_3.pth, iter_2.pth, iter_1.pth\): name one by --resume CH'):
        find_newest(tmp_path)


def test_the_newest_by_time_then_by_iteration(tmp_path: Path) -> None:
    """Of a longer training that was in the folder before, nothing is resumed."""
    _save(tmp_path, 900, 5)
    assert find_newest(tmp_path).path == tmp_path / 'iter_900.pth'
    _save(tmp_path, 9, 6)
    _save(tmp_path, 10, 6)
    assert find_newest(tmp_path).path == tmp_path / 'iter_10.pth'
    torch.save({}, tmp_path / 'best_ap_iter_11.pth')
    assert find_newest(tmp_path).path == tmp_path / 'iter_10.pth'


def test_checkpoints_elsewhere(tmp_path: Path) -> None:
    assert find_newest(tmp_path / 'none') == (None, [])
    (tmp_path / 'there').mkdir()
    path = _save(tmp_path / 'there', 3, 3)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    assert find_newest(tmp_path).path == path
    (tmp_path / 'last_checkpoint').write_bytes(bytes(20))
    assert find_newest(tmp_path) == (None, [])


def test_other_names(tmp_path: Path) -> None:
    """The hook's, and what the last one saved was called."""
    for name, seconds in (('ckpt_000009.pth', 1), ('ckpt_000010.pth', 1), ('new.pth', 2)):
        torch.save({}, tmp_path / name)
        os.utime(tmp_path / name, (seconds, seconds))
    assert find_newest(tmp_path) == (None, [])
    assert find_newest(tmp_path, 'ckpt_{:06d}.pth').path == tmp_path / 'ckpt_000010.pth'
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/new.pth')
    assert find_newest(tmp_path, 'ckpt_{:06d}.pth').path == tmp_path / 'new.pth'


@pytest.mark.parametrize('template', ['latest.pth', '{}_{}.pth', '{:x}.pth', '{:.1e}.pth', '{a}.pth', '{.a}.pth', '{'])
def test_names_without_the_number(template: str) -> None:
    with pytest.raises(ValueError):
        numbered(template)
