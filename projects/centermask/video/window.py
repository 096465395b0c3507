"""A window that shows frames while they are made."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import cv2
import numpy as np

from centermask.utils.errors import InputError


class Window:
    """OpenCV's window; closing it, or Q or Esc in it, ends the prediction.

    Args:
        title: of the window.

    Raises:
        InputError: there is no display, or this OpenCV has no windows.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        if sys.platform == 'linux' and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            raise InputError('--show: there is no display (DISPLAY is not set): leave --show out, a video is written.')
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise InputError(
                '--show: this OpenCV can open no windows (opencv-python-headless): pip uninstall '
                'opencv-python-headless, then pip install --force-reinstall opencv-python.'
            ) from error

    def show(self, image: np.ndarray) -> bool:
        """Show an RGB image (H, W, 3); return whether to go on."""
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in (ord('q'), 27) and self._is_open()

    def _is_open(self) -> bool:
        try:
            visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE)
            # GTK's windows never say; they have the other property as long as they are open.
            return visible > 0 or visible < 0 <= cv2.getWindowProperty(self._title, cv2.WND_PROP_AUTOSIZE)
        except cv2.error:  # on macOS a closed window has none
            return False

    def close(self) -> None:
        """Close the window."""
        with suppress(cv2.error):  # it is gone already, which some systems take for an error
            cv2.destroyWindow(self._title)
