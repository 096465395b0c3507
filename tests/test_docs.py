"""Links, paths, commands and options in README.md, CONTRIBUTING.md, docs/ and configs/README.md."""

import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from centermask_command import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'configs/README.md')),
    *sorted((REPOSITORY / 'docs').glob('*.md')),
]
EACH_PAGE = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


def _commands(page: Path) -> list[str]:
    """Return the lines of the indented code blocks, continued lines joined, without comments."""
    blocks = re.findall(r'(?:^    .*\n?)+', page.read_text(), re.MULTILINE)
    lines = re.sub(r'\\\n\s*', ' ', '\n'.join(blocks)).splitlines()
    return [line.partition('#')[0].strip() for line in lines]


@EACH_PAGE
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r'\]\(([^)\s]+)\)', page.read_text())
    local = [link.partition('#')[0] for link in links if not re.match(r'https?:|#', link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@EACH_PAGE
def test_named_configs_and_files_exist(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r'\b(?:configs|tools|tests|docs|examples)/[\w./-]*\w\.\w+', text)
    own = ('configs/mine.py',)  # a user's
    if page.name != 'CHANGELOG.md':  # it names what is gone
        assert [path for path in paths if path not in own and not (REPOSITORY / path).exists()] == []
    configs = re.findall(
        r'`(?:baselines/)?((?:(?:panoptic-)?centermask|fcos|retinamask|shapemask|tensormask|yolact|mask-rcnn)[\w.-]*_(?:coco|custom|shapes))(?:\.py)?`',
        text,
    )
    known = {path.stem for path in (REPOSITORY / 'configs').rglob('*.py')}
    assert [name for name in configs if name not in known] == []


@pytest.fixture(scope='module')
def options(tools: Callable[[str], Callable]) -> Callable[[str], set[str]]:
    """``options('train')`` is the set of options that tools/train.py knows, by its help."""

    @cache
    def read(name: str) -> set[str]:
        import contextlib
        import io

        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            tools(name)(['--help'])
        return set(re.findall(r'--[a-z][\w-]*', out.getvalue()))

    return read


@EACH_PAGE
def test_tools_take_the_options(page: Path, options: Callable[[str], set[str]]) -> None:
    unknown = []
    for command in _commands(page):
        match = re.match(r'(?:python |\w+=\S+ )*(?:tools/(\w+)\.(?:py|sh)|centermask (\w+))\b(.*)', command)
        if not match:
            continue
        scripts = {'dist_train': 'train', 'slurm_train': 'train', 'dist_test': 'test'}
        name = COMMANDS[match[2]] if match[2] else scripts.get(match[1], match[1])
        if name in ('figures', 'compare_with_reference'):  # subcommands; runs tests/parity
            continue
        words = re.findall(r'(?<![\w-])--[a-z][\w-]*', match[3])
        unknown += [f'{command}: {word}' for word in words if word not in options(name)]
    assert unknown == []


@EACH_PAGE
def test_make_has_the_targets(page: Path) -> None:
    targets = set(re.findall(r'^([\w-]+):', (REPOSITORY / 'Makefile').read_text(), re.MULTILINE))
    named = {shlex.split(command)[1] for command in _commands(page) if re.match(r'make \w', command)}
    assert named <= targets


def test_readme_is_short() -> None:
    assert len((REPOSITORY / 'README.md').read_text().splitlines()) <= 250
