"""tools/setup_env.py: what it does, in which order, and how it goes on; pip and the compiler are made up where slow."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'setup_env.py'
PYTHON = f'{sys.version_info[0]}.{sys.version_info[1]}'


@pytest.fixture
def setup_env(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    return importlib.import_module('setup_env')


@pytest.fixture
def clone(tmp_path):
    """A folder with the files the set-up reads."""
    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    for name in ('setup.cfg', 'pyproject.toml'):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def fake(setup_env, clone, monkeypatch):
    """Environments whose commands are recorded and only pretend: a folder in site-packages for each package."""

    class Fake(setup_env.Environment):
        interrupt_at: str | None = None

        def __init__(self, stack='openmmlab', torch_index=None):
            super().__init__(stack, torch_index, root=clone)
            self.commands: list[str] = []

        def run(self, command, what, log_name, progress=None, env=None):
            words = [str(c) for c in command]
            self.commands.append(' '.join(words))
            if self.interrupt_at and self.interrupt_at in what:
                raise KeyboardInterrupt
            site = self.folder / 'lib' / f'python{PYTHON}' / 'site-packages'
            if '--clear' in words:
                shutil.rmtree(self.folder, ignore_errors=True)
                (self.folder / 'bin').mkdir(parents=True)
                self.python.symlink_to(sys.executable)
                (self.folder / 'pyvenv.cfg').write_text(f'version = {PYTHON}.1\n')
                (site / 'pip-1.dist-info').mkdir(parents=True)
            elif 'download' in words and '--only-binary=:all:' in words:
                raise setup_env.SetupError('The package index has no mmcv')
            elif 'download' in words:
                folder = Path(words[words.index('-d') + 1])
                source = folder / f'{self.mmcv.replace("-", "_")}-2.1.0'
                source.mkdir(parents=True)
                shutil.make_archive(str(source), 'gztar', folder, source.name)
                shutil.rmtree(source)
            elif 'wheel' in words and '-w' in words:
                folder = Path(words[words.index('-w') + 1])
                folder.mkdir()
                (folder / f'{self.mmcv.replace("-", "_")}-2.1.0-py3-none-any.whl').touch()
            elif 'install' in words:
                for word in words[words.index('-c') + 2 :]:
                    name = 'centermask' if word == str(self.root) else Path(word).name.split('-2.1.0')[0]
                    if not name.startswith('-'):
                        (site / f'{name.replace("-", "_")}-1.dist-info').mkdir(exist_ok=True)

        def query(self, code):
            return 'cpython-torch-cpu'

        def check_compiler(self):
            pass

    monkeypatch.chdir(clone)
    return Fake


def ran(environment, text):
    return [command for command in environment.commands if text in command]


# ------------------------------------------------------------------------------------------------------- the steps


def test_from_nothing_does_every_step_in_order_and_then_nothing(fake, capsys):
    first = fake()
    assert first.missing() == ['venv', 'torch', 'tools', 'mmcv', 'rest', 'project']
    first.set_up()
    wanted = ('-m venv', ' torch setuptools', ' wheel ninja psutil', '--no-build-isolation -v', ' mmdet', '-e ')
    order = [next(i for i, command in enumerate(first.commands) if text in command) for text in wanted]
    assert order == sorted(order)
    assert '[4/6] Building mmcv with its ops (about 5 to 8 min on two cores)' in capsys.readouterr().out

    second = fake()
    second.set_up()
    assert second.commands == []
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('at', 'left'),
    [
        ('making', ['venv', 'torch', 'tools', 'mmcv', 'rest', 'project']),
        ('installing torch', ['torch', 'tools', 'mmcv', 'rest', 'project']),
        ('compiling', ['mmcv', 'rest', 'project']),
        ('other packages', ['rest', 'project']),
        ('this project', ['project']),
    ],
)
def test_interrupted_goes_on_at_the_unfinished_step(fake, at, left):
    first = fake()
    first.interrupt_at = at
    with pytest.raises(KeyboardInterrupt):
        first.set_up()
    second = fake()
    assert second.missing() == left
    second.set_up()
    assert fake().missing() == []
    # What the interrupted compile had of mmcv's source, or the built wheel, is used again.
    fetched = [command for command in first.commands + second.commands if '--no-binary' in command]
    assert len(fetched) == 1


def test_the_built_mmcv_is_kept_when_the_environment_is_lost(fake):
    fake().set_up()
    shutil.rmtree(fake().folder)
    again = fake()
    again.set_up()
    assert ran(again, '-m venv')
    assert not ran(again, '--no-build-isolation -v')


def test_a_half_made_environment_is_made_anew(fake):
    folder = fake().folder
    (folder / 'bin').mkdir(parents=True)
    (folder / 'bin' / 'python').symlink_to(folder / 'gone')
    (folder / 'pyvenv.cfg').write_text('version = 3.11.1\n')
    environment = fake()
    environment.set_up()
    assert ran(environment, '-m venv --clear')
    assert fake().missing() == []


def test_a_lost_package_is_installed_again(fake):
    fake().set_up()
    (fake().folder / 'lib' / f'python{PYTHON}' / 'site-packages' / 'mmdet-1.dist-info').rmdir()
    environment = fake()
    assert environment.missing() == ['rest', 'project']
    environment.set_up()
    assert fake().missing() == []


def test_another_pin_redoes_its_step_and_what_follows(fake, clone):
    fake().set_up()
    pins = clone / 'requirements' / 'openmmlab.txt'
    pins.write_text(pins.read_text().replace('mmcv==2.1.0', 'mmcv==2.1.1'))
    environment = fake()
    assert environment.missing() == ['mmcv', 'rest', 'project']
    environment.set_up()
    assert ran(environment, '--no-build-isolation -v')


def test_another_torch_index_replaces_torch_and_is_remembered(fake):
    fake().set_up()
    index = 'https://download.pytorch.org/whl/cpu'
    other = fake(torch_index=index)
    other.set_up()
    assert ran(other, 'uninstall -y torch')
    assert ran(other, f'--extra-index-url {index} torch')
    assert fake().missing() == []
    assert fake().torch_index == index


def test_the_forks_have_their_own_environment_and_names(fake):
    environment = fake('onedl')
    environment.set_up()
    assert environment.folder.name == '.venv-onedl'
    assert ran(environment, '--no-binary onedl-mmcv')
    assert ran(environment, ' onedl-mmdetection onedl-mmengine ')
    assert fake('onedl').missing() == []
    assert len(fake().missing()) == 6


def test_a_wheel_that_pip_knows_saves_the_compile(fake, monkeypatch):
    environment = fake()

    def find(self):
        wheel = self.build / 'mmcv-2.1.0-py3-none-any.whl'
        wheel.touch()
        return wheel

    monkeypatch.setattr(fake, 'find_wheel', find)
    environment.set_up()
    assert ran(environment, '--force-reinstall')
    assert not ran(environment, '--no-binary')


# ------------------------------------------------------------------------------------------- commands and their end


def in_build_folder(setup_env, clone):
    environment = setup_env.Environment(root=clone)
    environment.build.mkdir(parents=True)
    return environment


@pytest.mark.parametrize(
    ('printed', 'sentence'),
    [
        ("NewConnectionError('<pip...>: Failed to establish a new connection')", 'No connection to the package index'),
        ('OSError: [Errno 28] No space left on device', 'The disk is full'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ('OSError: CUDA_HOME environment variable is not set.', 'no CUDA compiler'),
        ('ERROR: No matching distribution found for torch==2.13.0', 'has no torch==2.13.0 that fits'),
        ('something unheard of', 'Testing failed: look at the end of the log'),
    ],
)
def test_a_failed_command_is_one_sentence_that_names_the_log(setup_env, clone, printed, sentence):
    environment = in_build_folder(setup_env, clone)
    code = f'print("first\\n" * 40); print({printed!r}); raise SystemExit(1)'
    with pytest.raises(setup_env.SetupError) as error:
        environment.run([sys.executable, '-c', code], 'testing', 'log')
    message = str(error.value)
    assert sentence in message
    assert '\n' not in message
    end = environment.build / 'log-end.log'
    assert str(end) in message
    assert len(end.read_text().splitlines()) == 30
    assert printed in end.read_text()


def test_without_network_the_real_pip_gets_its_sentence(setup_env, clone, monkeypatch):
    environment = in_build_folder(setup_env, clone)
    environment.python = Path(sys.executable)
    for name, value in (('INDEX_URL', 'http://127.0.0.1:9/simple'), ('RETRIES', '1'), ('CONFIG_FILE', os.devnull)):
        monkeypatch.setenv(f'PIP_{name}', value)
    monkeypatch.delenv('PIP_FIND_LINKS', raising=False)
    with pytest.raises(setup_env.SetupError, match='No connection to the package index while looking for a built mmcv'):
        environment.find_wheel()


def test_without_a_built_mmcv_the_real_pip_leads_to_the_compile(setup_env, clone, monkeypatch, tmp_path):
    environment = in_build_folder(setup_env, clone)
    environment.python = Path(sys.executable)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    assert environment.find_wheel() is None


def test_an_interruption_ends_what_the_command_started(setup_env, clone):
    environment = in_build_folder(setup_env, clone)
    mark = clone / 'pid'
    # A child that outlives a polite parent, as a compiler behind pip may.
    code = (
        'import os, signal, subprocess, sys, time\n'
        'child = subprocess.Popen([sys.executable, "-c", "import signal, time; '
        'signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"])\n'
        f'open({str(mark)!r}, "w").write(str(child.pid))\n'
        'time.sleep(60)\n'
    )

    def progress(elapsed):
        if mark.exists() and mark.read_text():
            raise KeyboardInterrupt
        return 'waiting'

    with pytest.raises(KeyboardInterrupt):
        environment.run([sys.executable, '-c', code], 'testing', 'log', progress)
    state = Path(f'/proc/{mark.read_text()}/stat')
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != 'Z' and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline


def test_the_compile_shows_files_and_time_left(setup_env, tmp_path):
    build = tmp_path / 'build' / 'temp.linux' / 'ops'
    build.mkdir(parents=True)
    (build / 'old.o').touch()
    progress = setup_env.CompileProgress(tmp_path)
    assert progress(5) == 'compiling mmcv: preparing, 0:05 elapsed'
    plan = ''.join(
        f'build /x/{i}.o: {kind} /x/{i}.cpp\n' for i, kind in enumerate(['compile'] * 6 + ['cuda_compile'] * 5)
    )
    (build.parent / 'build.ninja').write_text('rule compile\n' + plan)
    for i in range(4):
        (build / f'{i}.o').touch()
    # Four files in 40 s, six of eleven to go; the one that was there already took none of this time.
    assert progress(40) == 'compiling mmcv: 5 of 11 files, 0:40 elapsed, about 1:00 left'


# ----------------------------------------------------------------------------------- machines that lack something


@pytest.mark.parametrize(('version', 'word'), [((3, 13), 'new'), ((4, 0), 'new'), ((3, 9), 'old'), ((2, 7), 'old')])
def test_another_python_is_refused(setup_env, version, word):
    with pytest.raises(setup_env.SetupError, match=rf'{version[0]}\.{version[1]} is too {word}: install Python 3\.11'):
        setup_env.check_python(version)


@pytest.mark.parametrize('name', ['setup_env.py', 'setup_command.py'])
def test_old_pythons_can_read_the_script(name):
    assert ast.parse((ROOT / 'tools' / name).read_text(), feature_version=(3, 8)).body


def test_without_a_compiler(setup_env, clone, monkeypatch):
    environment = setup_env.Environment(root=clone)
    environment.python = Path(sys.executable)
    monkeypatch.setenv('CXX', '/no/such/compiler')
    with pytest.raises(setup_env.SetupError, match=r'no C\+\+ compiler \(/no/such/compiler\).*apt install g\+\+'):
        environment.check_compiler()


def test_without_the_headers_of_python(setup_env, clone, monkeypatch):
    environment = setup_env.Environment(root=clone)
    compiler = clone / 'compiler'
    compiler.write_text('#!/bin/sh\necho "fatal error: Python.h: No such file or directory" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', str(compiler))
    monkeypatch.setattr(environment, 'query', lambda code: '/no/such/folder')
    monkeypatch.setattr(environment, 'version', lambda: '3.11')
    with pytest.raises(setup_env.SetupError, match=r'apt install python3\.11-dev'):
        environment.check_compiler()


# ---------------------------------------------------------------------------------------- an environment of one's own


def test_an_environment_of_ones_own_is_checked(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env, 'requirements', lambda extra: ['torch>=999', 'no-such-package>=1', 'numpy'])
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.check_environment('')
    message = str(error.value)
    assert 'torch>=999 (2.' in message
    assert 'no-such-package>=1 (none installed)' in message
    assert 'numpy' not in message
    assert 'leave PYTHON away' in message


def test_this_environment_satisfies_the_requirements():
    result = subprocess.run([sys.executable, str(SCRIPT), '--check', '--extra', 'test'], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')


def test_make_with_a_bare_python_says_what_is_missing(tmp_path):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(tmp_path / 'bare')], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'MAKEFLAGS', 'MAKELEVEL')}
    result = subprocess.run(
        ['make', 'setup', f'PYTHON={tmp_path / "bare" / "bin" / "python"}'],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert 'lacks packaging: install it, or leave PYTHON away' in result.stderr
    assert 'Traceback' not in result.stderr


# --------------------------------------------------------------------------------------------------------- the pins


def pins(stack: str, python: str) -> dict[str, str]:
    lines = (ROOT / 'requirements' / 'common.txt').read_text().splitlines()
    lines += (ROOT / 'requirements' / f'{stack}.txt').read_text().splitlines()
    found: dict[str, str] = {}
    for line in lines:
        if not line or line.startswith(('#', '-c')):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({'python_version': python}):
            assert pin.name not in found, f'{pin.name} is pinned twice'
            found[pin.name] = str(pin.specifier).removeprefix('==')
    return found


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
@pytest.mark.parametrize('stack', ['openmmlab', 'onedl'])
def test_every_requirement_is_pinned_within_its_range(setup_env, stack, python):
    pinned = pins(stack, python)
    for text in setup_env.requirements('test'):
        requirement = Requirement(text)
        fork = setup_env.FORKS.get(requirement.name) if stack == 'onedl' else None
        version = pinned[fork or requirement.name]
        assert fork or requirement.specifier.contains(version), f'{text} against the pin {version}'


def test_an_extra_brings_those_it_names(setup_env):
    """setup.cfg's `test` names `centermask[export]`, which is for pip; here it stands for what `export` lists."""
    names = [setup_env.requirement_name(text) for text in setup_env.requirements('test')]
    assert {'torch', 'pytest', 'onnx', 'openvino'} <= set(names)
    assert 'centermask' not in names
