"""onnxruntime-web: the build of ONNX Runtime for browsers, from npm."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from centermask.export.runtime import require
from centermask.utils.errors import InputError

PACKAGE = 'onnxruntime-web@1.30.0'
SHA512 = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='

# Files of the package by their names in the page. A name ends in .js since some hosts don't take .mjs for a script.
FILES = {
    'wasm.js': 'ort.wasm.min.mjs',
    'wasm-module.js': 'ort-wasm-simd-threaded.mjs',
    'wasm.wasm': 'ort-wasm-simd-threaded.wasm',
    'webgpu.js': 'ort.webgpu.min.mjs',
    'webgpu-module.js': 'ort-wasm-simd-threaded.asyncify.mjs',
    'webgpu.wasm': 'ort-wasm-simd-threaded.asyncify.wasm',
}


def fetch_runtime(folder: Path) -> None:
    """Write onnxruntime-web's files, with ONNX Runtime's licence, into a new folder.

    npm keeps a package that it has fetched, so the next call needs no network.

    Raises:
        InputError: npm is absent, can't get the package, or gets another one.
    """
    npm = shutil.which('npm')
    if npm is None:
        raise InputError(
            f"npm isn't installed, which gets {PACKAGE} for the page: install Node.js, as by apt install npm."
        )
    with tempfile.TemporaryDirectory() as place:
        command = [npm, 'pack', PACKAGE, '--prefer-offline', '--loglevel=error', f'--pack-destination={place}']
        done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        archives = [*Path(place).glob('*.tgz')]
        if done.returncode or len(archives) != 1:
            reason = ' '.join(done.stderr.split())[:200] or f'exit code {done.returncode}'
            raise InputError(f'npm pack {PACKAGE} fails ({reason}): see that npm reaches its registry, and try again.')
        if base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode() != SHA512:
            raise InputError(
                f'npm pack {PACKAGE} gave another file than the one published: see which registry npm has.'
            )
        folder.mkdir()
        with tarfile.open(archives[0]) as archive:
            for name, source in FILES.items():
                content = archive.extractfile(f'package/dist/{source}')
                assert content is not None
                with content, open(folder / name, 'wb') as file:
                    shutil.copyfileobj(content, file)
    # The npm package has no copy of its licence; Python's has.
    licences = Path(require('onnxruntime').__file__).parent
    shutil.copyfile(licences / 'LICENSE', folder / 'LICENSE.txt')
    shutil.copyfile(licences / 'ThirdPartyNotices.txt', folder / 'ThirdPartyNotices.txt')
