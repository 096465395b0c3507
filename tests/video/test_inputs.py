"""What the words of a command name."""

from pathlib import Path

import pytest

from centermask.utils.errors import InputError
from centermask.video.inputs import output_name, sort_inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ('a.jpg', 'b.PNG', 'in/c.jpg', 'd.mp4', 'in/e.MKV', '.f.mp4', 'g.txt', 'clips/h.webm'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sort_inputs([str(folder)])
    assert found.images == [folder / 'a.jpg', folder / 'b.PNG', folder / 'in/c.jpg'] and found.root == folder
    assert found.videos == [str(folder / name) for name in ('clips/h.webm', 'd.mp4', 'in/e.MKV')]
    assert sort_inputs([str(folder / 'clips')]) == ([], Path(), [str(folder / 'clips/h.webm')])
    found = sort_inputs([str(folder / '**/*.jpg'), str(folder / 'a.jpg'), str(folder / 'd.mp4'), '0', 'rtsp://x/y'])
    assert found.images == [folder / 'a.jpg', folder / 'in/c.jpg'] and found.root == folder
    assert found.videos == [str(folder / 'd.mp4'), '0', 'rtsp://x/y']
    monkeypatch.chdir(folder / 'clips')
    found = sort_inputs(['../a.jpg', str(folder / 'in'), str(folder / 'a.jpg')])
    assert found.images == [folder / 'a.jpg', folder / 'in/c.jpg'] and found.root == folder


@pytest.mark.parametrize(
    ('word', 'sentence'),
    [
        ('no.mp4', r"The video no\.mp4 doesn't exist"),
        ('no.jpg', r"The image or folder no\.jpg doesn't exist"),
        ('no*.jpg', r'No file matches the pattern no\*\.jpg'),
    ],
)
def test_nothing_there(word: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        sort_inputs([word])


def test_names_of_results() -> None:
    taken: list[str] = []
    for video, name in (
        ('in/a.mp4', 'a'),
        ('other/a.mkv', 'a-2'),
        ('a.mov', 'a-3'),
        ('0', 'webcam0'),
        ('rtsp://user:secret@10.0.0.3:554/cam 1/main.sdp#x', '10.0.0.3_554_cam_1_main'),
        ('rtsp://10.0.0.4', '10.0.0.4'),
        ('rtsp://host/live.sdp?channel=1&password=secret', 'host_live-9731d7d8'),
        ('http://[::1]/', '1'),
        ('http:///', 'stream'),
        ('http://host/', 'host'),
    ):
        taken.append(output_name(video, taken))
        assert taken[-1] == name
