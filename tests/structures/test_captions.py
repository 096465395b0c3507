"""Where labels have room, and the legend."""

from itertools import combinations

import numpy as np
import pytest

from centermask.structures import captions
from centermask.structures.captions import MAX_COVERED, draw_legend, place_labels


@pytest.mark.parametrize('number', [5, 40])
def test_labels_overlap_no_label_and_hide_no_object(number: int) -> None:
    rng = np.random.default_rng(number)
    corners = rng.uniform(0, 560, (number, 2))
    boxes = np.hstack([corners, corners + rng.uniform(8, 120, (number, 2))])
    sizes = [(int(width), 18) for width in rng.integers(20, 120, number)]
    places = place_labels(boxes, sizes, (640, 640))
    shown = [(x, y, x + w, y + h) for place, (w, h) in zip(places, sizes, strict=True) if place for x, y in [place]]
    assert len(shown) > 0.3 * number
    assert all(min(x1, y1) >= 0 and max(x2, y2) <= 640 for x1, y1, x2, y2 in shown)
    assert not any(_common(a, b) for a, b in combinations(shown, 2))
    for box in boxes:
        assert max(_common(label, box) for label in shown) <= MAX_COVERED * np.prod(box[2:] - box[:2]) + 1e-6


def _common(a: np.ndarray, b: np.ndarray) -> float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_an_object_smaller_than_text_has_no_label() -> None:
    boxes = np.array([[100, 100, 110, 112], [300.0, 300, 400, 380]])
    assert place_labels(boxes, [(50, 18)] * 2, (640, 640)) == [None, (300, 282)]


def test_a_label_stays_inside_the_image() -> None:
    boxes = np.array([[600.0, 0, 640, 100]])
    assert place_labels(boxes, [(80, 18)], (640, 640)) == [(560, 0)], 'inside, at the upper corner'
    assert place_labels(boxes, [(700, 18)], (640, 640)) == [None]


def test_legend_counts_classes_that_have_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    draw = captions.ImageDraw.Draw

    def recording(image: object) -> object:
        canvas = draw(image)
        plain = canvas.text
        canvas.text = lambda place, text, *args, **kwargs: (texts.append(text), plain(place, text, *args, **kwargs))
        return canvas

    monkeypatch.setattr(captions.ImageDraw, 'Draw', recording)
    rows = [(f'name {i}', 30 - i, (255, 0, 0)) for i in range(30)]
    legend = draw_legend('465 objects', rows, 640, 12)
    assert legend.shape[0] == 640 and texts[0] == '465 objects'
    assert texts[1:] == [text for name, count, _ in rows for text in (str(count), name)]
    texts.clear()
    assert draw_legend('465 objects', rows, 100, 12).shape[0] == 100
    assert texts[-2:] == [str(sum(range(1, 20))), 'in 19 more classes']
