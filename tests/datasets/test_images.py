"""Reading images: the facts of a file are those of what MMDetection reads, and of a data set before a run."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from centermask.datasets.images import describe_range, find_images, inspect_image
from centermask.utils.errors import InputError

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
DEEP = PIXELS.astype(np.uint16) * 257


def _write(path: Path, image: Image.Image | None = None, **options: Any) -> None:
    (image or Image.fromarray(PIXELS)).save(path, **options)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture(scope='module')
def read() -> Callable[[Path], Image.Image]:
    """The reader of the example for exported files."""
    pytest.importorskip('onnxruntime')
    path = Path(__file__).resolve().parents[2] / 'examples/onnx_detect.py'
    spec = importlib.util.spec_from_file_location('onnx_detect', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif'])
def test_turned_by_exif(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f'a.{suffix}'
    _write(path, exif=_exif(orientation))
    facts = inspect_image(path)
    assert facts.orientation == orientation and facts.size == mmcv.imread(path, backend='cv2').shape[1::-1]
    assert facts.size == ((48, 64) if orientation > 4 else (64, 48))


def test_xmp_turns_nothing(read: Callable, tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    _write(tmp_path / 'a.jpg', xmp=xmp)
    assert Image.open(tmp_path / 'a.jpg').getexif()[0x0112] == 6
    read_so = mmcv.imread(tmp_path / 'a.jpg', backend='cv2').shape[1::-1]
    assert inspect_image(tmp_path / 'a.jpg').size == read(tmp_path / 'a.jpg').size == read_so == (64, 48)


@pytest.mark.parametrize('suffix', ['avif', 'webp'])
def test_turned_formats_that_libraries_read_differently(suffix: str, tmp_path: Path) -> None:
    _write(tmp_path / f'a.{suffix}')
    inspect_image(tmp_path / f'a.{suffix}')
    _write(tmp_path / f'a.{suffix}', exif=_exif(6))
    with pytest.raises(InputError, match='turned by its EXIF orientation 6, which not every library obeys in'):
        inspect_image(tmp_path / f'a.{suffix}')


@pytest.mark.parametrize('suffix', ['png', 'tif', 'ppm', 'jp2'])
@pytest.mark.parametrize(('divisor', 'dark'), [(1, False), (16, True), (256, True)])
def test_depth_and_range(suffix: str, divisor: int, dark: bool, tmp_path: Path) -> None:
    """12 bits and 8 bits in 16, and the whole range."""
    path = tmp_path / f'a.{suffix}'
    cv2.imwrite(str(path), DEEP // divisor)
    facts = inspect_image(path)
    assert facts.bits == 16 and facts.brightest == mmcv.imread(path, backend='cv2').max()
    assert ('read almost black' in describe_range([facts, facts])) == dark


@pytest.mark.parametrize('suffix', ['png', 'tif', 'webp', 'jp2', 'avif', 'gif', 'bmp'])
def test_eight_bits(suffix: str, tmp_path: Path) -> None:
    _write(tmp_path / f'a.{suffix}')
    facts = inspect_image(tmp_path / f'a.{suffix}')
    assert facts.bits == 8 and describe_range([facts]) == ''


def test_range_is_that_of_all_images(tmp_path: Path) -> None:
    """A dark image among others, or black ones, are no problem; zeros and ones are."""
    facts = []
    for name, factor in (('bright', 1), ('dark', 1 / 16), ('black', 0), ('one', 1 / 255)):
        _write(tmp_path / f'{name}.png', Image.fromarray((PIXELS * factor).round().astype(np.uint8)))
        facts.append(inspect_image(tmp_path / f'{name}.png'))
    bright, dark, black, one = facts
    assert describe_range([bright, dark]) == describe_range([black]) == ''
    assert describe_range([dark]) and describe_range([one])
    assert 'the brightest value of 2 as 1 of 255: scale their values to fill the range up to 255.' in describe_range(
        [one, black]
    )


@pytest.mark.parametrize(
    ('array', 'words'),
    [
        (PIXELS[..., 0].astype(np.float32), 'holds floats'),
        (PIXELS.astype(np.float32), 'has other numbers than 8 or 16 bits a channel'),
        (PIXELS[..., 0].astype(np.int16), 'holds floats, signed'),
    ],
    ids=['float', 'float colours', 'signed'],
)
def test_numbers_that_are_no_image(array: np.ndarray, words: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.tif'), array)
    with pytest.raises(InputError, match=words):
        inspect_image(tmp_path / 'a.tif')


def test_images_of_a_folder(tmp_path: Path) -> None:
    """Those of its folders too, but none that is hidden."""
    for name in ('b.jp2', 'a/c.JPG', 'notes.txt', '._b.jpg', '.trash/d.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(str(tmp_path)) == [tmp_path / 'a/c.JPG', tmp_path / 'b.jp2']


def test_size_before_turning_is_named_before_the_run(build, tmp_path: Path) -> None:
    dataset = build(lazy_init=True)
    _write(tmp_path / 'images/2.png', Image.new('RGB', (60, 40)), exif=_exif(8))
    with pytest.raises(InputError) as caught:
        dataset.full_init()
    assert '2.png is 40x60 pixels once turned by its EXIF orientation 8' in str(caught.value)
    assert 'states 60x40' in str(caught.value) and 'exiftool' in str(caught.value)
    _write(tmp_path / 'images/2.png', Image.new('RGB', (50, 40)), exif=_exif(8))
    with pytest.raises(InputError, match=r'is 40x50 pixels but .* states 60x40'):
        dataset.full_init()


def test_dark_data_are_named_before_the_run(build, tmp_path: Path, warnings: list[str]) -> None:
    dataset = build(lazy_init=True)
    for name in ('1.png', '2.png'):
        cv2.imwrite(str(tmp_path / 'images' / name), np.full((40, 60), 4095, np.uint16))
    dataset.full_init()
    (warning,) = warnings
    assert 'annotations.json: images of 16 bits a channel are read almost black, the brightest value of 2' in warning
    assert 'as 15 of 255' in warning and 'times 16' in warning


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp', 'jp2', 'avif', 'ppm'])
def test_example_reads_the_same(suffix: str, read: Callable, tmp_path: Path) -> None:
    """Depths, gray, alpha, and turned."""
    path = tmp_path / f'a.{suffix}'
    arrays = [PIXELS, PIXELS[..., 0]]
    if suffix in ('png', 'tif', 'jp2', 'ppm'):
        arrays += [DEEP // 16] if suffix == 'jp2' else [DEEP // 16, DEEP[..., 0]]
    if suffix in ('png', 'webp'):
        arrays.append(np.dstack([PIXELS, PIXELS[..., 0]]))
    images = [functools.partial(cv2.imwrite, str(path), array) for array in arrays]
    if suffix in ('jpg', 'png', 'tif'):
        images.append(functools.partial(_write, path, exif=_exif(6)))
    for write in images:
        write()
        expected = mmcv.imread(path, backend='cv2').astype(int)  # of 16-bit colours in TIFF OpenCV rounds up
        np.testing.assert_allclose(np.asarray(read(path))[..., ::-1], expected, atol=1)


def test_example_refuses_floats(read: Callable, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.tif'), PIXELS[..., 0].astype(np.float32))
    with pytest.raises(SystemExit, match='holds F: save it in gray or RGB with 8 or 16 bits a channel'):
        read(tmp_path / 'a.tif')
