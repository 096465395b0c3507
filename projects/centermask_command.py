"""The command ``centermask NAME ...``, which runs ``tools/NAME.py`` of the installed package or the checkout.

A module beside the package, since importing the package takes seconds, and ``centermask -h`` shall not.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import sys
from pathlib import Path

TOOLS = Path(__file__).with_name('centermask') / '.mim/tools'
COMMANDS = {
    'train': 'train',
    'test': 'test',
    'predict': 'predict',
    'export': 'export',
    'check': 'check_dataset',
    'convert': 'convert_checkpoint',
    'benchmark': 'benchmark',
    'demo': 'demo',
    'report': 'report',
}


def main() -> int:
    """Run the command that ``sys.argv`` names and return its exit code."""
    name = sys.argv[1] if sys.argv[1:] else '--help'
    if name in ('-h', '--help'):
        print(describe())
        return 0
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, 1, cutoff=0)[0]
        print(f'error: centermask has no command {name!r}: try {nearest!r}, or see centermask -h.', file=sys.stderr)
        return 2
    sys.argv = [f'centermask {name}', *sys.argv[2:]]  # the first is what argparse shows as the program
    spec = importlib.util.spec_from_file_location(f'centermask_{name}', TOOLS / f'{COMMANDS[name]}.py')
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    from centermask.engine.cli import run

    return run(tool.main)


def describe() -> str:
    """Return the help: a line for each command, the first sentence of its file."""
    lines = ['usage: centermask COMMAND ...', '']
    for name, tool in COMMANDS.items():
        text = ast.get_docstring(ast.parse((TOOLS / f'{tool}.py').read_text())) or ''
        sentence = text.partition(':')[0].partition('.')[0]
        lines.append(f'  {name:10} {sentence}')
    return '\n'.join([*lines, '', 'centermask COMMAND -h shows the options of one.'])
