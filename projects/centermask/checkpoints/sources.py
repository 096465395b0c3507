"""Where weights can be had: their link, other addresses of the same file, a mirror, and what to do by hand."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote, urlparse

import mmengine.hub
import torch
from mmengine.fileio import load
from mmengine.logging import print_log
from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models, get_mmcls_models

from centermask.checkpoints.download import DownloadError, check_file, download, one_process
from centermask.checkpoints.metafile import find_release
from centermask.utils.errors import InputError

MIRROR = 'CENTERMASK_WEIGHTS'
"""The environment variable that names a folder or an address with the files under their names."""

_DROPBOX = ('dl.dropbox.com', 'www.dropbox.com', 'dl.dropboxusercontent.com')
_BACKBONES = ('vovnet', 'mobilenet_v2_')  # of the releases' ImageNet weights there
_HASHED = ('download.pytorch.org', 'download.openmmlab.com')  # where a file's name ends in its SHA-256
_TIMM = {  # configs with a VoVNet of this depth from the Hugging Face hub
    '19': 'centermask-lite-star_v2-19-dw-timm_fpn_4x_coco',
    '39': 'centermask-star_v2-39-timm_fpn_3x_coco',
    '57': 'centermask-star_v2-57-timm_fpn_3x_coco',
}


def as_url(source: str) -> str | None:
    """Return a checkpoint's URL, also of MMEngine's short forms; None for a file, and for forms without a URL.

    Raises:
        InputError: it is malformed.
    """
    scheme, _, name = source.partition('://')
    url: str | None = None
    if scheme in ('http', 'https'):
        url = source
    elif scheme in ('open-mmlab', 'openmmlab'):
        url = get_external_models().get(get_deprecated_model_names().get(name, name))
    elif scheme == 'mmcls':
        url = get_mmcls_models().get(name)
    elif scheme in ('torchvision', 'modelzoo'):  # whose own list MMEngine would import
        url = load(Path(mmengine.hub.__file__).with_name('torchvision_0.12.json')).get(name)
    if not url or not url.startswith(('http://', 'https://')):
        return None
    try:
        urlparse(url)
    except ValueError as error:
        raise InputError(f'{url} is no address ({error}): correct it, or give the path of a checkpoint.') from error
    return url


def fetch(url: str, remedy: str = 'give the path of a checkpoint.') -> str:
    """Return the path of a file from the net, which stays in torch's cache.

    Args:
        url: its link; other addresses of the same file are tried too.
        remedy: what the user can do where it can't be had, the end of the sentence.

    Raises:
        InputError: no address gives it, or that of ``CENTERMASK_WEIGHTS`` needs a password.
    """
    name = _file_name(url)
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    mirror = os.environ.get(MIRROR, '')
    remote = '://' in mirror
    if remote and '@' in urlparse(mirror).netloc:
        raise InputError(f'{MIRROR} has a user name, which is not sent: give an address without one, or a folder.')
    failures = []
    if mirror and not remote:
        own = Path(mirror).expanduser() / name
        try:
            check_file(own, _expected_sha256(url))
            return str(own)
        except OSError as error:
            failures.append(f"{MIRROR}: {own} can't be read, {error.strerror}")
        except DownloadError as error:
            failures.append(f'{MIRROR}: {own} is {error}')
    if path.is_file():
        return str(path)
    addresses = {f'{mirror.rstrip("/")}/{quote(name)}': mirror} if remote else {}
    addresses |= {address: urlparse(address).netloc for address in _addresses_of(url)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with one_process(path):
            if path.is_file():  # of another process
                return str(path)
            for address, host in addresses.items():
                print_log(f'fetching {address} as {path}', 'current')
                try:
                    download(address, path, _expected_sha256(url))
                    return str(path)
                except DownloadError as error:
                    failures.append(f'{host}: {error}')
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}): set TORCH_HOME to another folder.") from error
    raise InputError(
        f"The checkpoint {url} can't be fetched ({'; '.join(failures)}): {_by_hand(url, path)} or {remedy}"
    )


def _file_name(url: str) -> str:
    """Return the name of a file in torch's cache: its own where no other file has it, else its complete address."""
    address = urlparse(url)
    name = Path(address.path).name
    ours = find_release(url) is not None or name.startswith(_BACKBONES)
    if address.netloc in _HASHED or (address.netloc in _DROPBOX and ours):
        return name
    stem, suffix = os.path.splitext(address.netloc + address.path)
    if address.query not in ('', 'dl=0', 'dl=1'):
        stem += f'-{hashlib.sha256(address.query.encode()).hexdigest()[:8]}'
    return re.sub(r'[^\w.-]+', '_', stem + suffix)


def _addresses_of(url: str) -> list[str]:
    """Return the addresses of a file: its link, and of a link to Dropbox the one by the other host."""
    address = urlparse(url)
    if address.netloc not in _DROPBOX or not address.path.startswith('/s/'):
        return [url]
    return list(dict.fromkeys([url, f'https://{_DROPBOX[-1]}{address.path}']))


def _expected_sha256(url: str) -> str:
    """Return the beginning of a file's SHA-256 from the metafile or from its name, '' if it is in neither."""
    if release := find_release(url):
        return release.sha256
    in_name = re.search(r'-([0-9a-f]{8})\.\w+$', urlparse(url).path)
    return in_name[1] if in_name and urlparse(url).netloc in _HASHED else ''


def _by_hand(url: str, path: Path) -> str:
    """Return in words what can be done without this program."""
    words = f'download it by a browser as {path}'
    if (release := find_release(url)) and release.folder:
        words += f', from its link or the folder {release.folder}'
    if vovnet := re.search(f'vovnet({"|".join(_TIMM)})[-_]ese', path.name):
        words += f', train {_TIMM[vovnet[1]]} instead, whose backbone is on the Hugging Face hub'
    return words + ','
