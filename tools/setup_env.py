"""Set up the environment, or check one: the first step of `make demo` and `make test`.

Without `--check` it makes the virtual environment of a stack beside the Makefile: torch, mmcv built with its ops, the
rest under the pins in requirements/, and this project. Each finished step leaves a stamp keyed on what it installs, so
an interrupted set-up goes on where it stopped, and one with nothing to do starts neither pip nor torch. Uses the
standard library alone, in a syntax that old Pythons read, so that a wrong Python gets a sentence.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from setup_command import AGAIN, CompileProgress, SetupError, clock, explain, run

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 12)
VENVS = {'openmmlab': '.venv', 'onedl': '.venv-onedl'}
FORKS = {'mmcv': 'onedl-mmcv', 'mmengine': 'onedl-mmengine', 'mmdet': 'onedl-mmdetection'}


def check_python(version: tuple = sys.version_info[:2]) -> None:
    """Refuse a Python that the pins have not been resolved for."""
    if OLDEST <= tuple(version) <= NEWEST:
        return
    raise SetupError(
        f'Python {version[0]}.{version[1]} is too {"old" if version < OLDEST else "new"}: install Python 3.11 (3.10 '
        'and 3.12 do too) so that `python3.11` is found (`apt install python3.11 python3.11-venv python3.11-dev` or '
        '`uv python install 3.11`, for example), and run the same command again.'
    )


def requirements(extra: str = '') -> list[str]:
    """The requirements in setup.cfg, one string each, those of `extra` and of the extras it names included."""
    config = configparser.ConfigParser(comment_prefixes=('#',))
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    text = config['options']['install_requires']
    if extra:
        text += '\n' + config['options.extras_require'][extra]
        for other in config['options.extras_require']:
            text = text.replace(f'centermask[{other}]', config['options.extras_require'][other])
    return [line.strip() for line in text.splitlines() if line.strip()]


def requirement_name(requirement: str) -> str:
    """`torch>=2.6,<2.14` -> `torch`."""
    return re.split(r'[^A-Za-z0-9._-]', requirement, maxsplit=1)[0]


class Environment:
    """The virtual environment of one stack, and the steps that fill it.

    Args:
        stack: `openmmlab` or `onedl`.
        torch_index: Package index to take torch from besides those of pip's settings
            (`https://download.pytorch.org/whl/cpu`); None for the one named when torch was installed here, if any.
        root: Folder of the repository.
    """

    def __init__(self, stack: str = 'openmmlab', torch_index: str | None = None, root: Path = ROOT):
        self.root = root
        self.stack = stack
        self.folder = root / VENVS[stack]
        self.python = self.folder / 'bin' / 'python'
        self.stamps = self.folder / 'setup'
        self.build = root / 'build' / f'setup-{stack}'
        self.constraints = root / 'requirements' / f'{stack}.txt'
        self.mmcv = self.renamed('mmcv')
        self.torch_index = torch_index if torch_index is not None else self.recorded_index()
        self.steps = (
            ('venv', 'making the virtual environment', '10 s', self.make_venv),
            ('torch', 'installing torch', 'CPU build 1 min; CUDA build: a download of several GB', self.install_torch),
            ('tools', 'installing the build tools', '5 s', self.install_tools),
            ('mmcv', 'building mmcv with its ops', '5 to 8 min on two cores', self.install_mmcv),
            ('rest', 'installing the other packages', '1 min', self.install_rest),
            ('project', 'installing this project (editable)', '5 s', self.install_project),
        )

    def renamed(self, name: str) -> str:
        """The name under which this stack has an OpenMMLab package."""
        return FORKS.get(name, name) if self.stack == 'onedl' else name

    # ------------------------------------------------------------------------------------------ what is done already

    def recorded_index(self) -> str:
        path = self.stamps / 'torch-index'
        return path.read_text().strip() if path.is_file() else ''

    def version(self) -> str:
        """Version of the Python that the environment was made with; empty where there is none that runs."""
        config = self.folder / 'pyvenv.cfg'
        if not (config.is_file() and os.access(self.python, os.X_OK)):
            return ''
        match = re.search(r'^version(?:_info)? *= *(\d+\.\d+)', config.read_text(), re.MULTILINE)
        return match.group(1) if match and OLDEST <= tuple(map(int, match.group(1).split('.'))) <= NEWEST else ''

    def keys(self) -> dict[str, str]:
        """What each step depends on, hashed; each key covers the steps before it."""
        common = (self.root / 'requirements' / 'common.txt').read_text()
        pins = common + self.constraints.read_text()

        def pinned(*names: str) -> str:
            return '\n'.join(line for line in pins.splitlines() if line.split('==')[0] in names)

        inputs = {
            'venv': f'{self.folder} {self.version()}',
            'torch': pinned('torch', 'setuptools') + self.torch_index,
            'tools': pinned('wheel', 'ninja', 'psutil'),
            'mmcv': pinned(self.mmcv),
            'rest': pins + '\n'.join(requirements('test')),
            'project': (self.root / 'setup.cfg').read_text() + (self.root / 'pyproject.toml').read_text(),
        }
        keys, chain = {}, ''
        for name, text in inputs.items():
            chain = hashlib.sha256((chain + text).encode()).hexdigest()
            keys[name] = chain
        return keys

    def missing(self) -> list[str]:
        """Names of the steps still to be done."""
        names = [step[0] for step in self.steps]
        if not self.version():
            return names
        keys = self.keys()
        site = self.folder / 'lib' / f'python{self.version()}' / 'site-packages'
        installed = {entry.name.split('-')[0] for entry in site.glob('*.dist-info')}
        provides = {
            'venv': ['pip'],
            'torch': ['torch'],
            'mmcv': [self.mmcv],
            'rest': [self.renamed('mmdet'), self.renamed('mmengine'), 'numpy', 'pytest'],
            'project': ['centermask'],
        }
        for i, name in enumerate(names):
            stamp = self.stamps / name
            done = stamp.is_file() and stamp.read_text() == keys[name]
            if not done or not all(p.replace('-', '_') in installed for p in provides.get(name, [])):
                return names[i:]
        return []

    # ------------------------------------------------------------------------------------------ doing it

    def set_up(self) -> None:
        """Do the steps still to be done.

        Raises:
            SetupError: Something is missing on this machine or a step failed.
        """
        if not self.missing():
            return
        if not self.version():
            check_python()
        started = time.monotonic()
        self.build.mkdir(parents=True, exist_ok=True)
        with (self.build / 'lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print(f'Another set-up of {self.folder.name} is running; waiting for it ...', flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            todo = self.missing()
            if todo:
                print(f'Setting up {self.folder.name}: {len(todo)} of {len(self.steps)} steps to do.', flush=True)
            for number, (name, what, estimate, action) in enumerate(self.steps, 1):
                if name not in todo:
                    continue
                print(f'[{number}/{len(self.steps)}] {what[0].upper()}{what[1:]} (about {estimate}) ...', flush=True)
                step_started = time.monotonic()
                (self.stamps / name).unlink(missing_ok=True)
                action()
                self.stamps.mkdir(exist_ok=True)
                (self.stamps / name).write_text(self.keys()[name])
                print(f'    done in {clock(time.monotonic() - step_started)}', flush=True)
        print(f'{self.folder.name} is ready after {clock(time.monotonic() - started)}.', flush=True)

    def run(self, command: list, what: str, log: str, progress=None, env: dict | None = None) -> None:
        """Run a command with the environment's programs first; see `setup_command.run`."""
        path = f'{self.folder / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}'
        # Settings of a user's pip that would lead outside the environment, or wait for an answer nobody is asked for.
        env = {'PATH': path, 'PIP_USER': '0', 'PIP_NO_INPUT': '1', **(env or {})}
        run(command, what, self.build / f'{log}.log', progress, env)

    def pip(self, *arguments: object, what: str, log: str, command: str = 'install') -> None:
        """Run pip in the environment, under the pins."""
        pip = [self.python, '-m', 'pip', '--disable-pip-version-check', command, '-c', self.constraints]
        self.run([*pip, *arguments], what, log)

    def query(self, code: str) -> str:
        """What a line of Python prints in the environment."""
        result = subprocess.run([str(self.python), '-c', code], capture_output=True, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ['no message'])[-1]
            raise SetupError(f'{self.folder.name} does not work ({reason}): remove it, {AGAIN}.')
        return result.stdout.strip()

    def make_venv(self) -> None:
        works = (
            self.version()
            and not subprocess.run(
                [str(self.python), '-m', 'pip', '--version'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ).returncode
        )
        if not works:
            self.run([sys.executable, '-m', 'venv', '--clear', self.folder], 'making the virtual environment', 'venv')
        if not self.find_wheel():
            self.check_compiler()

    def find_wheel(self) -> Path | None:
        """A built mmcv, where pip knows one (in PIP_FIND_LINKS or an own index): it saves the compile."""
        target = self.build / 'prebuilt'
        shutil.rmtree(target, ignore_errors=True)
        try:
            self.pip(
                *('--no-deps', '--only-binary=:all:', '-d', target, self.mmcv),
                command='download',
                what='looking for a built mmcv',
                log='prebuilt',
            )
        except SetupError as error:
            if not str(error).startswith('The package index has no'):
                raise
        return next(target.glob('*.whl'), None)

    def check_compiler(self) -> None:
        """Refuse a machine that can't compile mmcv before the long downloads."""
        compiler = shlex.split(os.environ.get('CXX', 'c++'))
        include = self.query('import sysconfig; print(sysconfig.get_paths()["include"])')
        version = self.version()
        try:
            result = subprocess.run(
                [*compiler, '-std=c++17', '-fsyntax-only', '-I', include, '-x', 'c++', '-'],
                input='#include <optional>\n#include <Python.h>\n',
                capture_output=True,
                text=True,
            )
        except OSError:
            raise SetupError(
                f'There is no C++ compiler ({compiler[0]}), which mmcv is built with: install one (Debian and Ubuntu: '
                f'apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), {AGAIN}.'
            ) from None
        if result.returncode and 'Python.h' in result.stderr:
            raise SetupError(
                f"Python's headers (Python.h), which mmcv is built with, are missing: install them (Debian and Ubuntu: "
                f'apt install python{version}-dev; Fedora: dnf install python{version}-devel), {AGAIN}.'
            )
        if result.returncode:
            raise SetupError(
                f'The C++ compiler ({" ".join(compiler)}) cannot compile C++17, which mmcv needs: install GCC 9 or '
                f'newer, or name another compiler in CXX, {AGAIN}.'
            )

    def install_torch(self) -> None:
        if self.stamps.joinpath('torch-index').is_file() and self.recorded_index() != self.torch_index:
            # pip takes another build of the same version for the one that is wanted.
            self.run([self.python, '-m', 'pip', 'uninstall', '-y', 'torch'], 'removing the other torch', 'torch')
        (self.stamps / 'torch-index').write_text(self.torch_index)
        index = ['--extra-index-url', self.torch_index] if self.torch_index else []
        # One command: torch alone pulls a setuptools without pkg_resources.
        self.pip(*index, 'torch', 'setuptools', what='installing torch', log='torch')

    def install_tools(self) -> None:
        self.pip('wheel', 'ninja', 'psutil', what='installing the build tools', log='tools')

    def install_mmcv(self) -> None:
        wheel = self.find_wheel() or self.build_wheel()
        self.pip('--no-deps', '--force-reinstall', wheel, what='installing mmcv', log='mmcv-install')

    def build_wheel(self) -> Path:
        """Build mmcv for the installed torch; the wheel is kept, and so is what an interrupted build has compiled."""
        tag = self.query(
            'import os, sys, torch\n'
            'cuda = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"\n'
            'print(sys.implementation.cache_tag, "torch", torch.__version__, "cuda" if cuda else "cpu", sep="-")'
        )
        pin = next(line for line in self.constraints.read_text().splitlines() if line.startswith(f'{self.mmcv}=='))
        cache = self.build / f'{pin}-{tag}'
        source = cache / 'source'
        pattern = f'{self.mmcv.replace("-", "_")}-*'
        if not source.is_dir():
            built = next(cache.glob(f'{pattern}.whl'), None)
            if built:
                return built
            fresh = self.build / 'unpacking'
            shutil.rmtree(fresh, ignore_errors=True)
            self.pip(
                *('--no-deps', '--no-build-isolation', '--no-binary', self.mmcv, '-d', fresh, self.mmcv),
                command='download',
                what='fetching the source of mmcv',
                log='mmcv-source',
            )
            archive = next(fresh.glob(f'{pattern}.tar.gz'))
            with tarfile.open(archive) as tar:
                tar.extractall(fresh, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
            cache.mkdir(exist_ok=True)
            next(path for path in fresh.glob(pattern) if path.is_dir()).rename(source)
        self.check_compiler()
        # CFLAGS take the place of Python's own: without debug information the compile takes a third of the time, and
        # without an -O the ops would be slow.
        env = {'MMCV_WITH_OPS': '1', 'CFLAGS': f'-O2 -g0 {os.environ.get("CFLAGS", "")}'.strip()}
        env['MAX_JOBS'] = os.environ.get('MAX_JOBS', str(compile_jobs()))
        finished = self.build / 'built'
        shutil.rmtree(finished, ignore_errors=True)
        command = [
            self.python,
            '-m',
            'pip',
            '--disable-pip-version-check',
            'wheel',
            '--no-deps',
            '--no-build-isolation',
        ]
        command += ['-v', '-w', finished, source]
        self.run(command, 'compiling mmcv', 'mmcv', CompileProgress(source), env)
        wheel = next(finished.glob('*.whl'))
        shutil.rmtree(source)
        return Path(shutil.move(str(wheel), str(cache / wheel.name)))

    def install_rest(self) -> None:
        names = [self.renamed(requirement_name(requirement)) for requirement in requirements('test')]
        self.pip(*names, what='installing the other packages', log='rest')
        # mmengine asks for opencv-python, which needs the libraries of a desktop (libGL) to be imported at all.
        headless = ['--no-deps', '--force-reinstall', 'opencv-python-headless']
        self.pip(*headless, what='installing OpenCV without a desktop', log='rest-opencv')
        check = [self.python, '-c', 'import mmcv.ops, mmdet, pycocotools.mask']
        self.run(check, 'loading the installed packages', 'rest-check')

    def install_project(self) -> None:
        self.pip(*('--no-deps', '--no-build-isolation', '-e', self.root), what='installing this project', log='project')


def compile_jobs() -> int:
    """How many compilers to run at once: one for each core, as far as 2 GB each are free."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    with contextlib.suppress(OSError, AttributeError):
        free = re.search(r'MemAvailable: *(\d+) kB', Path('/proc/meminfo').read_text())
        return max(1, min(cores, int(free.group(1)) // 2_000_000))
    return cores


# ------------------------------------------------------------------------------------------------- an environment as is


def check_environment(extra: str) -> None:
    """Check that the Python running this satisfies the ranges in setup.cfg, whichever of the two stacks it has.

    Args:
        extra: Name of an extra to check as well, or an empty string.

    Raises:
        SetupError: Names what is missing or out of range.
    """
    check_python()
    from importlib import metadata

    remedy = 'install it, or leave PYTHON away so that an environment is made'
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise SetupError(f'{sys.executable} lacks packaging: {remedy}.') from None
    wrong = []
    for text in requirements(extra):
        requirement = Requirement(text)
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            fork = FORKS.get(requirement.name)
            if not fork or not any(metadata.distributions(name=fork)):
                wrong.append(f'{text} (none installed)')
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f'{text} ({found} installed)')
    if wrong:
        raise SetupError(f'{sys.executable} lacks {"; ".join(wrong)}: {remedy}.')
    mmcv = metadata.distribution('mmcv' if any(metadata.distributions(name='mmcv')) else FORKS['mmcv'])
    if not any(Path(str(mmcv.locate_file('mmcv'))).glob('_ext*')):
        raise SetupError(
            f'{sys.executable} has an mmcv without its compiled ops: build it with MMCV_WITH_OPS=1, or {remedy}.'
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--stack', choices=sorted(VENVS), default='openmmlab', help='which packages (default: openmmlab)'
    )
    parser.add_argument('--torch-index', metavar='URL', help='index to take torch from, e.g. of its CPU or CUDA build')
    parser.add_argument('--check', action='store_true', help='only check the Python that runs this, install nothing')
    parser.add_argument('--extra', default='', help='with --check: check an extra of setup.cfg too')
    options = parser.parse_args(arguments)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for sig in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sig) != signal.SIG_IGN:  # as under nohup
            signal.signal(sig, interrupt)
    try:
        if options.check:
            check_environment(options.extra)
        else:
            Environment(options.stack, options.torch_index).set_up()
    except SetupError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('Interrupted. Run the same command again: it goes on where it stopped.', file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC:
            print(f'Error: {error}: see to it, {AGAIN}.', file=sys.stderr)
        else:
            print(f'Error: {explain("Errno 28", "the set-up")}, {AGAIN}.', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
