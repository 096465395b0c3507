"""Download a checkpoint: complete, what it should be, and once for several processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from mmengine.logging import print_log
from tqdm import tqdm

from centermask.checkpoints.unpickling import UnreadableFileError, load_file
from centermask.utils.atomic_io import TMP_PREFIX

TIMEOUT = 30  # seconds without a byte
CHUNK = 2**18  # bytes


class DownloadError(Exception):
    """Why a file can't be had from an address, in a few words."""


@contextmanager
def one_process(path: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file; they wait here, and find it afterwards."""
    lock = FileLock(path.with_name(f'.{path.name}.lock'))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print_log(f'waiting for another process, which fetches {path.name}', 'current')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def download(url: str, path: Path, sha256: str = '') -> None:
    """Download a checkpoint with a progress bar. It appears under its name when it is complete and can be read.

    Args:
        url: its address.
        path: where it goes, in a folder that exists.
        sha256: the beginning of its SHA-256 in hexadecimal, '' if that is unknown.

    Raises:
        DownloadError: the server doesn't give it, or gives something else.
    """
    aside = path.with_name(f'{TMP_PREFIX}{path.name}')  # which replaces what a killed process left
    try:
        _receive(url, aside)
        check_file(aside, sha256)
        os.replace(aside, path)
    except HTTPError as error:
        raise DownloadError(f'{error.code} {error.reason}') from error
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DownloadError(getattr(reason, 'strerror', None) or str(reason) or type(error).__name__) from error
    finally:
        aside.unlink(missing_ok=True)


def check_file(path: Path, sha256: str) -> None:
    """Check that a checkpoint can be read and has a SHA-256, of which the beginning is given.

    Raises:
        DownloadError: it can't be, or is another one.
    """
    digest = hashlib.sha256()
    try:
        with path.open('rb') as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        found = digest.hexdigest()[: len(sha256)]
        if found != sha256:
            raise DownloadError(f'another file, whose SHA-256 begins with {found} and not {sha256}')
        load_file(path)
    except UnreadableFileError as error:
        page = path.read_bytes()[:100].lstrip().startswith(b'<')
        raise DownloadError('a web page and no file' if page else f'a file that {error}') from error


def _receive(url: str, path: Path) -> None:
    """Write what a server sends, all of it."""
    name = PurePosixPath(urlparse(url).path).name
    request = Request(url, headers={'User-Agent': 'centermask'})
    with urlopen(request, timeout=TIMEOUT) as answer, path.open('wb') as file:
        length = int(answer.headers.get('Content-Length') or 0)
        # On a terminal alone: a log would get a line for each step.
        with tqdm(total=length or None, unit='B', unit_scale=True, desc=name, disable=None) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if file.tell() < length:
            raise DownloadError(f'it ends after {file.tell()} of {length} bytes')
