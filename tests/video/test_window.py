"""What OpenCV's builds say of a window."""

import cv2
import numpy as np
import pytest

from centermask.video.window import Window

IMAGE = np.zeros((4, 4, 3), np.uint8)
BUILDS = {  # WND_PROP_VISIBLE and WND_PROP_AUTOSIZE of an open and of a closed window; None is an error
    'Qt': ((1, 0), (0, -1)),
    'GTK': ((-1, 0), (-1, -1)),
    'macOS': ((1, -1), (None, None)),
}


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Window:
    monkeypatch.setenv('DISPLAY', ':0')
    for name in ('namedWindow', 'imshow'):
        monkeypatch.setattr(cv2, name, lambda *args: None)
    monkeypatch.setattr(cv2, 'waitKey', lambda wait: -1)
    return Window('a')


@pytest.mark.parametrize('build', BUILDS)
def test_closing_it_ends_the_prediction(build: str, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(values: tuple) -> None:
        def get(title: str, number: int) -> float:
            value = values[number == cv2.WND_PROP_AUTOSIZE]
            if value is None:
                raise cv2.error('NULL window')
            return value

        monkeypatch.setattr(cv2, 'getWindowProperty', get)

    opened, closed = BUILDS[build]
    properties(opened)
    assert window.show(IMAGE)
    properties(closed)
    assert not window.show(IMAGE)


def test_keys_end_it(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda *args: 1.0)
    for key, goes_on in ((ord('q'), False), (27, False), (ord('x'), True)):
        monkeypatch.setattr(cv2, 'waitKey', lambda wait, key=key: key)
        assert window.show(IMAGE) == goes_on
