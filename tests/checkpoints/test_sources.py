"""Weights from the net: from a server on this machine that answers 403, 404, half a file, a wrong file, slowly."""

import hashlib
import io
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.weights_server import WeightsServer, serve_weights

from centermask.checkpoints import download, metafile, sources
from centermask.checkpoints.metafile import Release
from centermask.checkpoints.reading import read
from centermask.checkpoints.sources import as_url, fetch
from centermask.utils.errors import InputError


def _saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


WEIGHTS = _saved({'model': {'w': torch.ones(2000)}})
OLD = _saved({'model': {'w': torch.ones(2000)}}, _use_new_zipfile_serialization=False)  # as both releases were saved
ARRAYS = pickle.dumps({'model': {'w': np.ones(2000, np.float32)}}, 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of torch's cache, which is empty."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv(sources.MIRROR, raising=False)
    return tmp_path / 'torch/hub/checkpoints'


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serve_weights() as running:
        yield running


@pytest.fixture
def released(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the link of a released model, whose host and other host are the server's folders."""
    link = 'https://www.dropbox.com/s/abc/centermask-R-50-FPN-ms-3x.pth?dl=1'
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    models = {'centermask_r50_fpn_3x_coco': Release(link, sha256, 'https://drive.google.com/drive/folders/x')}
    monkeypatch.setattr(metafile, 'released_models', lambda: models)
    own = download._receive

    def receive(url: str, path: Path) -> str:
        return own(url.replace('https://', f'{server.address}/'), path)

    monkeypatch.setattr(download, '_receive', receive)
    return link


FIRST, SECOND = (
    f'/{host}/s/abc/centermask-R-50-FPN-ms-3x.pth' for host in ('www.dropbox.com', 'dl.dropboxusercontent.com')
)


def _files(folder: Path) -> list[str]:
    """The names of a folder's files, without locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith('.lock'))


@pytest.mark.parametrize(('name', 'content'), [('a.pth', WEIGHTS), ('a.pth', OLD), ('R-50.pkl', ARRAYS)])
def test_fetched_once(name: str, content: bytes, server: WeightsServer, cache: Path) -> None:
    """Files are kept under the complete address, since all of timm's have one name."""
    server.files[f'/timm/{name}'] = content
    for _ in range(2):
        assert read(f'{server.address}/timm/{name}?dl=1').weights['w'].tolist() == 2000 * [1]
    assert server.asked == [f'/timm/{name}?dl=1']
    assert _files(cache) == [f'127.0.0.1_{server.address.rpartition(":")[2]}_timm_{name}']


@pytest.mark.parametrize(
    ('fault', 'words'),
    [
        ('403', '403 Forbidden'),
        ('404', '404 Not Found'),
        ('500', '500 Internal Server Error'),
        ('half', f'it ends after {len(WEIGHTS) // 2} of {len(WEIGHTS)} bytes'),
        ('page', 'a web page and no file'),
        ('stuck', 'timed out'),
    ],
)
@pytest.mark.parametrize('right', [True, False])
def test_faults(
    fault: str, words: str, right: bool, server: WeightsServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror fails; the link is tried next. Where it fails too, both are named, with what to do."""
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    url = f'{server.address}/link/a.pth'
    name = sources._file_name(url)
    monkeypatch.setenv(sources.MIRROR, f'{server.address}/mirror/')
    server.files.update({f'/mirror/{name}': WEIGHTS, '/link/a.pth': WEIGHTS})
    server.faults[f'/mirror/{name}'] = fault
    if right:
        assert fetch(url) == str(cache / name)
        assert (cache / name).read_bytes() == WEIGHTS
        return
    server.faults['/link/a.pth'] = fault
    with pytest.raises(InputError) as error:
        fetch(url, 'name another.')
    message = str(error.value)
    assert message.startswith(f"The checkpoint {url} can't be fetched ({server.address}/mirror/: ")
    assert message.endswith(f'download it by a browser as {cache / name}, or name another.')
    assert message.count(words) == 2
    assert not _files(cache)


def test_slowly(server: WeightsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow and never silent has its time."""
    monkeypatch.setattr(download, 'TIMEOUT', 0.3)
    server.files['/a.pth'], server.faults['/a.pth'] = WEIGHTS, 'slow'
    assert Path(fetch(f'{server.address}/a.pth')).read_bytes() == WEIGHTS


def test_not_what_was_released(server: WeightsServer, released: str, cache: Path) -> None:
    """Another intact checkpoint has another SHA-256. The other host has the right one."""
    server.files.update({FIRST: OLD, SECOND: WEIGHTS})
    assert fetch(released) == str(cache / 'centermask-R-50-FPN-ms-3x.pth')
    assert server.asked == [f'{FIRST}?dl=1', SECOND]
    assert Path(fetch(released)).read_bytes() == WEIGHTS and len(server.asked) == 2


def test_release_that_can_not_be_had(server: WeightsServer, released: str, cache: Path) -> None:
    """The folder of the release is named, under its own file name, which a browser gives it."""
    server.files[FIRST] = OLD
    with pytest.raises(InputError) as error:
        fetch(released)
    right, wrong = (hashlib.sha256(content).hexdigest() for content in (WEIGHTS, OLD))
    assert str(error.value) == (
        f"The checkpoint {released} can't be fetched (www.dropbox.com: another file, whose SHA-256 begins with "
        f'{wrong} and not {right}; dl.dropboxusercontent.com: 404 Not Found): download it by a browser as '
        f'{cache}/centermask-R-50-FPN-ms-3x.pth, from its link or the folder https://drive.google.com/drive/folders/x, '
        'or give the path of a checkpoint.'
    )


def test_nothing_runs(server: WeightsServer, tmp_path: Path, cache: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / 'mark'),)

    server.files.update({'/a.pth': _saved({'model': Call()}), '/a.pkl': pickle.dumps({'model': Call()})})
    for name in ('a.pth', 'a.pkl'):
        with pytest.raises(InputError, match=r'a file that holds a posix\.mkdir, which no checkpoint needs'):
            fetch(f'{server.address}/{name}')
    assert not (tmp_path / 'mark').exists() and not _files(cache)


def test_folder_of_ones_own(
    released: str, server: WeightsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes before the cache; a file that it lacks, or has another of, is fetched."""
    (tmp_path / 'own').mkdir()
    monkeypatch.setenv(sources.MIRROR, str(tmp_path / 'own'))
    with pytest.raises(
        InputError, match=r"can't be fetched \(CENTERMASK_WEIGHTS: .*own/.*ms-3x\.pth can't be read, No such"
    ):
        fetch(released)
    own = tmp_path / 'own/centermask-R-50-FPN-ms-3x.pth'
    for content in (OLD, b'<html>'):
        own.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"can't be fetched \(CENTERMASK_WEIGHTS: {own} is another file, whose SHA-256 begins"
        ):
            fetch(released)
    server.files[SECOND] = WEIGHTS
    cached = fetch(released)
    assert cached != str(own) and Path(cached).read_bytes() == WEIGHTS
    own.write_bytes(WEIGHTS)
    assert fetch(released) == str(own)


def test_a_mirror_with_a_password(released: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.MIRROR, 'http://user:secret@127.0.0.1:9/x')
    with pytest.raises(InputError, match=r'^CENTERMASK_WEIGHTS has a user name, which is not sent: ') as error:
        fetch(released)
    assert 'secret' not in str(error.value)


def test_two_processes(server: WeightsServer, cache: Path) -> None:
    """One of them fetches, the other one waits."""
    server.files['/a.pth'], server.faults['/a.pth'] = WEIGHTS, 'slow'
    with multiprocessing.get_context('fork').Pool(2) as pool:
        paths = pool.map(fetch, 2 * [f'{server.address}/a.pth'], chunksize=1)
    assert len(set(paths)) == len(server.asked) == 1
    assert Path(paths[0]).read_bytes() == WEIGHTS


def test_what_a_killed_process_left(server: WeightsServer, cache: Path) -> None:
    server.files['/a.pth'] = WEIGHTS
    name = sources._file_name(f'{server.address}/a.pth')
    cache.mkdir(parents=True)
    (cache / f'.part-{name}').write_bytes(2 * WEIGHTS)
    assert Path(fetch(f'{server.address}/a.pth')).read_bytes() == WEIGHTS
    assert _files(cache) == [name]


def test_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / 'torch').touch()
    with pytest.raises(InputError, match=r"can't be written \(Not a directory\): set TORCH_HOME to another folder"):
        fetch('http://127.0.0.1:9/a.pth')


def test_damaged_in_the_cache(server: WeightsServer) -> None:
    server.files['/a.pth'] = WEIGHTS
    path = fetch(f'{server.address}/a.pth')
    os.truncate(path, 1000)
    with pytest.raises(
        InputError, match=rf'\(kept as {path}\) is truncated or no checkpoint at all: remove it, or give'
    ):
        read(f'{server.address}/a.pth')


@pytest.mark.parametrize(
    ('source', 'url'),
    [
        ('https://somewhere/a.pth', 'https://somewhere/a.pth'),
        ('torchvision://resnet101', 'https://download.pytorch.org/models/resnet101-63fe2227.pth'),
        (
            'open-mmlab://detectron2/resnet50_caffe',
            'https://download.openmmlab.com/pretrain/third_party/resnet50_msra-5891d200.pth',
        ),
        (
            'open-mmlab://resnet50_caffe',  # an old name of MMEngine's
            'https://download.openmmlab.com/pretrain/third_party/resnet50_caffe-788b5fa3.pth',
        ),
        ('open-mmlab://nothing', None),
        ('modelzoo://resnet101', 'https://download.pytorch.org/models/resnet101-63fe2227.pth'),
        (
            'mmcls://vgg11',
            'https://download.openmmlab.com/mmclassification/v0/vgg/vgg11_batch256_imagenet_20210208-4271cd6c.pth',
        ),
        ('a.pth', None),
    ],
)
def test_short_forms(source: str, url: str | None) -> None:
    assert as_url(source) == url


def test_a_malformed_address() -> None:
    with pytest.raises(InputError, match=r'^https://\[bad/x\.pth is no address \(.*\): correct it, or give'):
        as_url('https://[bad/x.pth')


@pytest.mark.parametrize(
    'addresses',
    [
        ('https://dl.dropbox.com/s/abc/a.pth', 'https://dl.dropbox.com/s/def/a.pth'),
        ('https://somewhere/uc?id=1', 'https://somewhere/uc?id=2'),
        ('https://a/vovnet39.pth', 'https://b/vovnet39.pth'),
    ],
)
def test_files_of_one_name_are_kept_apart(addresses: tuple[str, str]) -> None:
    assert len(set(map(sources._file_name, addresses))) == 2


def test_backbones_keep_their_names() -> None:
    url = 'https://dl.dropbox.com/s/q98pypf96rhtd8y/vovnet39_ese_detectron2.pth'
    assert sources._file_name(url) == 'vovnet39_ese_detectron2.pth'


def test_sha256_in_a_name() -> None:
    """The names of some servers end in it, others in dates."""
    assert sources._expected_sha256('https://download.pytorch.org/models/resnet101-63fe2227.pth') == '63fe2227'
    assert sources._expected_sha256('https://somewhere/a-20200205.pth') == ''


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('vovnet19-ese-statedict.pth', 'centermask-lite-star_v2-19-dw-timm_fpn_4x_coco'),
        ('vovnet39_ese_detectron2.pth', 'centermask-star_v2-39-timm_fpn_3x_coco'),
        ('vovnet57_ese_state_dict.pth', 'centermask-star_v2-57-timm_fpn_3x_coco'),
        ('vovnet99_ese_detectron2.pth', None),
        ('vovnet19_ese_slim_detectron2.pth', 'centermask-lite-star_v2-19-dw-timm_fpn_4x_coco'),
    ],
)
def test_way_out_of_a_backbone(name: str, config: str | None) -> None:
    words = sources._by_hand(f'https://dl.dropbox.com/s/abc/{name}', Path(name))
    assert (f'train {config} instead, whose backbone is on the Hugging Face hub' in words) == bool(config)
    assert config is None or (metafile.CONFIGS / f'{config}.py').is_file()
