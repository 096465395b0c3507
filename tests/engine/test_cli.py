"""Common parts of the command lines: options, folders and exit codes."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from centermask.engine import cli
from centermask.utils.errors import InputError, RunError


def _raise(error: Exception, cause: Exception | None = None) -> Callable[[], None]:
    def command() -> None:
        raise error from cause

    return command


@pytest.mark.parametrize(
    ('command', 'code', 'text'),
    [
        (lambda: None, 0, ''),
        (_raise(InputError('This is bad.')), 2, 'error: This is bad.\n'),
        (_raise(RunError('This went bad.')), 1, 'error: This went bad.\n'),
        (_raise(TypeError('Head: This is bad.'), InputError('This is bad.')), 2, 'error: This is bad.\n'),
        (_raise(KeyboardInterrupt()), 130, 'interrupted\n'),
    ],
)
def test_exit_codes(command: Callable, code: int, text: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.run(command) == code
    assert capsys.readouterr().err == text


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


class Broken(Dataset):
    """A data set of which no image can be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise RunError('The image a.jpg is broken: replace it.')


def test_errors_of_a_loaders_worker(capsys: pytest.CaptureFixture) -> None:
    assert cli.run(lambda: list(DataLoader(Broken(), num_workers=1))) == 1
    assert capsys.readouterr().err == 'error: The image a.jpg is broken: replace it.\n'


def test_words_without_value(capsys: pytest.CaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    cli.add_config_options(parser)
    assert parser.parse_args(['--cfg-options', 'a.b=1', 'c=[1,2]']).cfg_options == {'a.b': 1, 'c': [1, 2]}
    assert parser.parse_args([]).cfg_options == {}
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(['--cfg-options', 'a.b'])
    assert stop.value.code == 2 and 'KEY=VALUE' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['3', '-0.1', '30%', 'nan', ''])
def test_fractions_are_from_0_to_1(text: str, capsys: pytest.CaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--score-thr', type=cli.fraction)
    assert [parser.parse_args(['--score-thr', good]).score_thr for good in ('0', '.3', '1')] == [0, 0.3, 1]
    with pytest.raises(SystemExit, match='2'):
        parser.parse_args([f'--score-thr={text}'])
    assert capsys.readouterr().err.endswith(f'error: argument --score-thr: {text!r} is no number from 0 to 1\n')


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    cli.require_writable(tmp_path / 'new/folder', '--work-dir')
    assert list((tmp_path / 'new/folder').iterdir()) == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(
        InputError, match=r'The folder .*/file/folder can.t be written to .*: give another one by --out'
    ):
        cli.require_writable(tmp_path / 'file/folder', '--out')
    with pytest.raises(InputError, match='File exists'):
        cli.require_writable(tmp_path / 'file', '--out')


def test_work_folder_of_a_model_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    cli.add_run_arguments(parser)
    cfg = cli.load_run_config(parser.parse_args(['centermask_r50']))
    assert cfg.work_dir == 'work_dirs/centermask_r50_fpn_3x_coco' and Path(cfg.work_dir).is_dir()
