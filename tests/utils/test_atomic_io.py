from __future__ import annotations

import pytest

from centermask.utils.atomic_io import atomic_folder, atomic_write
from centermask.utils.errors import InputError, RunError


def made_here(folder):
    return (folder / 'mark').exists()


def write(out):
    with atomic_folder(out, made_here) as folder:
        (folder / 'mark').touch()


def test_takes_the_place_of_nothing_an_empty_folder_or_its_own(tmp_path):
    out = tmp_path / 'a' / 'out'
    write(out)
    (out / 'old').touch()
    write(out)
    assert [path.name for path in out.iterdir()] == ['mark']
    (tmp_path / 'empty').mkdir()
    write(tmp_path / 'empty')
    assert made_here(tmp_path / 'empty')
    assert [path.name for path in out.parent.iterdir()] == ['out']


@pytest.mark.parametrize('foreign', ['file', 'folder'])
def test_leaves_alone_what_is_not_its_own(tmp_path, foreign):
    out = tmp_path / 'out'
    kept = out
    if foreign == 'folder':
        out.mkdir()
        kept = out / 'thesis.txt'
    kept.write_text('years of work')
    with pytest.raises(InputError, match=r'out exists .* name another folder'):
        write(out)
    assert kept.read_text() == 'years of work'


def test_an_error_leaves_what_was_there(tmp_path):
    out = tmp_path / 'out'
    write(out)
    with pytest.raises(ValueError, match='half way'), atomic_folder(out, made_here):
        raise ValueError('half way')
    assert made_here(out)
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_an_error_names_the_file_that_it_is_about(tmp_path):
    out = tmp_path / 'out'
    missing = tmp_path / 'a.jpg'
    with (
        pytest.raises(RunError, match=rf'out is not written \(No such file or directory, {missing}\): mend that'),
        atomic_folder(out, made_here),
    ):
        missing.read_bytes()
    assert not any(tmp_path.iterdir())


def test_a_place_that_can_not_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='can not be written'):
        write(tmp_path / 'file' / 'out')


@pytest.mark.parametrize(
    ('error', 'why'),
    [(OSError(28, 'No space left on device'), 'No space left on device'), (RuntimeError('x'), 'the disk may be full')],
)
def test_a_file_that_ends_half_way(tmp_path, error, why):
    def write_half(path):
        path.write_text('half')
        raise error

    out = tmp_path / 'a.pth'
    out.write_text('before')
    with pytest.raises(RunError, match=rf"a\.pth can't be written to its end \({why}\): make room there"):
        atomic_write(out, write_half)
    assert out.read_text() == 'before'
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']
    atomic_write(out, lambda path: path.write_text('whole'))
    assert out.read_text() == 'whole'
