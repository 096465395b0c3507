"""A video of H.264 in MP4, which browsers and phones play."""

from __future__ import annotations

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from centermask.utils.atomic_io import aside_of
from centermask.utils.errors import InputError, RunError

TIME_BASE = Fraction(1, 90_000)  # the unit of times; all usual frame rates are whole numbers of it
BT709 = 1  # number of these colours in the standard
OPTIONS = {'preset': 'superfast', 'crf': '23'}


class VideoWriter:
    """A file whose frames have the times that they are given; it appears, complete, when the block ends.

    Also an error or Ctrl-C ends it with what is written by then. Without a frame there is no file.

    Args:
        path: ends in ``.mp4``.
        rate: average frames a second.
        pixel_shape: width of a pixel over its height.

    Raises:
        InputError: PyAV's FFmpeg has no encoder of H.264.
        RunError: it can't be written.
    """

    def __init__(self, path: Path, rate: Fraction, pixel_shape: Fraction = Fraction(1)) -> None:
        if 'libx264' not in av.codecs_available:
            raise InputError("PyAV's FFmpeg has no libx264, by which videos are written: pip install av.")
        self.path, self._aside = path, aside_of(path)
        self._rate, self._pixel_shape = rate, pixel_shape
        self._container: av.container.OutputContainer | None = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Write an RGB image (H, W, 3) that is shown from a time on; all are scaled to the size of the first."""
        try:
            if self._container is None:
                self._open(image)
            width, height = self._size
            if image.shape[:2] != self._shown:
                image = cv2.resize(image, self._shown[::-1], interpolation=cv2.INTER_AREA)
            if image.shape[:2] != (height, width):  # H.264 has even sides
                bottom, right = height - image.shape[0], width - image.shape[1]
                image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(image, 'rgb24').reformat(
                format='yuv420p', dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            self._last = max(self._last + 1, round(seconds / TIME_BASE))
            frame.pts, frame.time_base = self._last, TIME_BASE
            self._mux(frame)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def _open(self, image: np.ndarray) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._shown = image.shape[:2]
        height, width = (side + side % 2 for side in self._shown)
        self._size = width, height
        self._container = av.open(str(self._aside), 'w', format='mp4')
        stream = self._container.add_stream('libx264', rate=self._rate, options=OPTIONS)
        context = stream.codec_context
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, 'yuv420p', TIME_BASE
        context.time_base, context.thread_count = TIME_BASE, 1  # other cores are the model's
        context.sample_aspect_ratio = self._pixel_shape
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        self._stream = stream

    def _mux(self, frame: av.VideoFrame | None) -> None:
        assert self._container is not None
        self._container.mux(self._stream.encode(frame))

    def _failed(self, error: Exception) -> RunError:
        why = getattr(error, 'strerror', None) or error
        return RunError(f"{self.path} can't be written ({why}): make room there or name another place by --out-dir.")

    def __exit__(self, *_: object) -> None:
        if self._container is None:
            return
        try:
            self._mux(None)
            self._container.close()
            os.replace(self._aside, self.path)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        finally:
            with suppress(OSError):
                self._aside.unlink()
