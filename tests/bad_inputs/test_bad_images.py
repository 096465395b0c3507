"""Images: refused by their header, or read to their end, before a model is loaded or anything is written."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

from centermask.datasets.images import MAX_PIXELS, check_image
from centermask.utils.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
DAMAGED = 'it is damaged or not an image'


def _encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def _png(width: int, height: int, data: bytes, *chunks: bytes) -> bytes:
    header = _chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    return (
        b'\x89PNG\r\n\x1a\n' + header + b''.join(chunks) + _chunk(b'IDAT', zlib.compress(data)) + _chunk(b'IEND', b'')
    )


def _frames(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(PIXELS, i, 0)) for i in range(3)]
    return _encoded(kind, frames[0], save_all=True, append_images=frames[1:])


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


CASES: dict[str, tuple[str, bytes, str]] = {  # what it is: name, content, words of the sentence
    'truncated JPEG': ('a.jpg', _half(_encoded('JPEG')), DAMAGED),
    'truncated PNG': ('a.png', _half(_encoded('PNG')), DAMAGED),
    'text': ('a.jpg', b'<html>Sign in to download</html>', DAMAGED),
    'PostScript': ('a.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', DAMAGED),
    'PNG that claims 400 megapixels': ('a.png', _png(20000, 20000, bytes(1000)), '20000x20000 pixels, more than'),
    'GIF that claims 4 gigapixels': (
        'a.gif',
        b'GIF89a'
        + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0)
        + b','
        + struct.pack('<HHHHB', 0, 0, 9, 9, 0)
        + b'\2\0;',
        '65535x65535 pixels, more than',
    ),
    'PNG whose text unpacks to 100 MB': (
        'a.png',
        _png(8, 8, bytes(72), _chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(100_000_000)))),
        DAMAGED,
    ),
    'CMYK': ('a.jpg', _encoded('JPEG', Image.fromarray(PIXELS).convert('CMYK')), 'holds several images or is in CMYK'),
    'animated GIF': ('a.gif', _frames('GIF'), 'holds several images'),
}
TOO_LARGE = [case for case, (*_, words) in CASES.items() if 'more than' in words]


@pytest.mark.parametrize('case', CASES)
def test_refused(case: str, outcome: Callable, config: Path, tmp_path: Path) -> None:
    name, content, words = CASES[case]
    path = tmp_path / name
    path.write_bytes(content)
    assert outcome('predict', path, config, 'any.pth', '--out-dir', tmp_path / 'out').refused(str(path), words)


@pytest.mark.parametrize('case', TOO_LARGE)
def test_nothing_is_decoded_of_what_is_too_large(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, content, words = CASES[case]
    (tmp_path / name).write_bytes(content)
    decoded = []
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: decoded.append(self.size))
    with pytest.raises(InputError, match=words):
        check_image(tmp_path / name, decode=True)
    assert not decoded
    check_image(tmp_path / name, 10**10, decode=True)
    assert decoded[0][0] * decoded[0][1] > 3 * MAX_PIXELS


@pytest.mark.parametrize(
    'make',
    [os.mkdir, lambda path: path.symlink_to('nowhere'), os.mkfifo],
    ids=['folder', 'dangling link', 'pipe'],
)
def test_no_file(make: Callable, outcome: Callable, config: Path, tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    make(tmp_path / 'images/a.jpg')
    ended = outcome('predict', tmp_path / 'images', config, 'any.pth', '--out-dir', tmp_path / 'out')
    assert ended.refused(f"{tmp_path}/images/a.jpg is no file or doesn't exist")


def test_one_pixel_too_many(outcome: Callable, config: Path, tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    path.write_bytes(_encoded('PNG'))
    words = [path, config, 'any.pth', '--out-dir', tmp_path / 'out', '--max-pixels']
    assert outcome('predict', *words, 48 * 64 - 1).refused('64x48 pixels, more than the 3071 that --max-pixels')
    assert outcome('predict', *words, 48 * 64).refused('any.pth')  # the next thing that is wrong


@pytest.mark.parametrize(
    ('kind', 'mode'),
    [('JPEG', 'L'), ('PNG', 'P'), ('WEBP', 'RGB'), ('TIFF', 'L')],
)
def test_usual_formats_are_accepted(kind: str, mode: str, tmp_path: Path) -> None:
    """Whatever the suffix: OpenCV too goes by the content."""
    (tmp_path / 'a.jpg').write_bytes(_encoded(kind, Image.fromarray(PIXELS).convert(mode)))
    check_image(tmp_path / 'a.jpg', decode=True)
    assert LoadImageFromFile()({'img_path': str(tmp_path / 'a.jpg')})['img'].shape == (48, 64, 3)


def test_data_sets_have_the_same_limit(config: Path) -> None:
    data = Config.fromfile(config).train_dataloader.dataset
    assert DATASETS.build(data)[0]['inputs'].shape == (3, 40, 60)
    data.max_pixels = 40 * 60 - 1
    with pytest.raises(InputError, match=r'images/a\.png has 60x40 pixels, more than the 2399'):
        DATASETS.build(data)[0]
