"""Objects drawn on images, and colours of classes."""

import numpy as np

from centermask.report.drawing import Shown, class_colours, draw_objects


def test_an_object_without_a_mask_is_drawn_by_its_box() -> None:
    image = np.full((50, 100, 3), 120, np.uint8)
    drawn = draw_objects(image, [Shown(None, (60, 10, 30, 30), (255, 0, 0), 'x')], 1)
    assert drawn[39, 75].tolist() == [255, 0, 0]
    assert drawn[25, 75].tolist() == [120, 120, 120]


def test_every_class_has_its_colour() -> None:
    for number in (1, 10, 80):
        assert len(set(class_colours(number))) == number
