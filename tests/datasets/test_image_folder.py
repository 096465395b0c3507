"""Images under the names of an annotation file that was written elsewhere."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from centermask.datasets.image_folder import ImageFolder
from centermask.utils.errors import InputError


def test_missing_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.jpg').touch()
    assert ImageFolder(tmp_path).find_all(['a/1.jpg'], 'x.json') == [str(tmp_path / 'a' / '1.jpg')]
    with pytest.raises(InputError, match=r'2 of the 3 images of x\.json are missing, the first is .*a/2\.jpg'):
        ImageFolder(tmp_path).find_all(['a/1.jpg', 'a/2.jpg', 'b/1.jpg'], 'x.json')


@pytest.mark.parametrize('on_disk', ['NFC', 'NFD'])
def test_backslashes_and_normal_forms(tmp_path: Path, on_disk: str) -> None:
    path = tmp_path / unicodedata.normalize(on_disk, 'é') / unicodedata.normalize(on_disk, 'ä ö.jpg')
    path.parent.mkdir()
    path.touch()
    for form in ('NFC', 'NFD'):
        assert ImageFolder(tmp_path).find(unicodedata.normalize(form, 'é\\ä ö.jpg')) == str(path)


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    for name in ('a\\b.jpg', unicodedata.normalize('NFD', 'ä.jpg'), 'ä.jpg'):
        (tmp_path / name).touch()
        assert ImageFolder(tmp_path).find(name) == str(tmp_path / name)


def test_training_reads_them(build, content: dict, tmp_path: Path) -> None:
    content['images'][0]['file_name'] = unicodedata.normalize('NFD', 'sub\\bär.png')
    (tmp_path / 'images/sub').mkdir(parents=True)
    Image.new('RGB', (60, 40)).save(tmp_path / 'images/sub/bär.png')
    assert build()[0]['data_samples'].img_path == str(tmp_path / 'images/sub/bär.png')


@pytest.mark.parametrize('name', ['..\\a.png', 'C:\\a.png', 'C:a.png', '\\\\host\\a.png', '/a.png'])
def test_paths_out_of_the_folder_are_refused(build, content: dict, name: str) -> None:
    content['images'][0]['file_name'] = name
    with pytest.raises(InputError, match='no valid "file_name", a path within the folder of images'):
        build()
