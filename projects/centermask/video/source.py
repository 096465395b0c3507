"""Frames of a video file or a stream, read by PyAV, and of a webcam, read by OpenCV, which PyAV's wheels can't do."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

from centermask.datasets.images import MAX_PIXELS
from centermask.utils.errors import InputError, RunError
from centermask.video.inputs import is_stream

TIMEOUT = 10.0  # seconds without data after which a stream is given up
UNSPECIFIED = 2  # FFmpeg's number for colours that a video doesn't name
UNTAGGED_HD = 720  # lines from which players take a video that doesn't name its colours for BT.709
MIN_COMPLETE = 0.95  # of the frames or the time that a file announces
TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class Frame(NamedTuple):
    """A frame, of which the image is made when it is asked for.

    Attributes:
        number: from 0, with those that are dropped.
        seconds: time since the first frame.
        read: returns the image (H, W, 3), upright, in BGR.
    """

    number: int
    seconds: float
    read: Callable[[], np.ndarray]


class VideoSource:
    """A video file or a stream; iterating over it yields its frames and closes it.

    Args:
        address: path or URL.

    Attributes:
        name: for messages, without a password.
        live: whether frames come by themselves, so that those are to be dropped which there is no time for.
        rate: average frames a second.
        total: number of frames as announced or estimated, None where it isn't known.
        pixel_shape: width of a pixel over its height.

    Raises:
        InputError: it can't be opened, has no frames of video or has too many pixels.
    """

    def __init__(self, address: str) -> None:
        stream = is_stream(address)
        self.name = re.sub(r'(?<=//)[^/@]*@', '', address)
        options = {'rtsp_transport': 'tcp'} if address.lower().startswith('rtsp') else {}
        try:
            # FFmpeg takes what stands before a colon in a relative path for a protocol.
            place = address if stream else os.path.abspath(address)
            self._container = av.open(place, timeout=TIMEOUT if stream else None, options=options)
        except (av.FFmpegError, OSError) as error:
            raise self._refused(stream, error) from error
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f'{self.name} holds no pictures, it is damaged or has only sound: give a video.')
        video = self._stream = self._container.streams.video[0]
        video.codec_context.thread_count = 1  # as fast as needed, and other cores are the model's
        if video.width * video.height > MAX_PIXELS:
            self._container.close()
            raise InputError(f'{self.name} has frames of {video.width}x{video.height} pixels, too many to decode.')
        self._stated = video.frames  # PyAV reads freed memory once the container is closed
        self._length = float((video.duration or 0) * (video.time_base or 0))  # 0: unknown
        length = self._container.duration
        self.live = stream and not length
        self.rate = Fraction(video.average_rate or video.guessed_rate or 25)
        self.total = self._stated or (round(length / av.time_base * self.rate) if length else None)
        self.pixel_shape = Fraction(video.sample_aspect_ratio or 1)

    def _refused(self, stream: bool, error: Exception) -> InputError:
        if not stream:
            return InputError(
                f'The video {self.name} could not be read, it is damaged, cut off or no video: give another file.'
            )
        why = f'it sent nothing for {TIMEOUT:g} seconds' if isinstance(error, av.ExitError) else _reason(error)
        return InputError(f"The stream {self.name} can't be opened, {why}: check its address and that it is sending.")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            InputError: there are none.
            RunError: after some, the file turns out to be damaged or cut off, or the stream breaks off.
        """
        count = damaged = 0
        start = last = None
        broken: Exception | None = None
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    damaged += 1
                    continue
                for frame in decoded:
                    seconds = frame.time
                    if seconds is None:
                        seconds = 0.0 if last is None else last + float(1 / self.rate)
                    start = seconds if start is None else start
                    last = seconds
                    yield Frame(count, seconds - start, lambda frame=frame: _upright(frame))  # type: ignore[misc]
                    count += 1
        except (av.FFmpegError, OSError) as error:
            # The end of HTTP without a length is FFmpeg's EIO.
            broken = None if self.live and error.errno == errno.EIO else error
        finally:
            self._container.close()
        self._check_end(count, damaged, broken, seconds=(last or 0.0) - (start or 0.0))

    def _check_end(self, count: int, damaged: int, broken: Exception | None, seconds: float) -> None:
        """Raise an error unless all frames were read, the last of which is shown some seconds after the first."""
        if not count:
            raise InputError(f'{self.name} holds no frame that can be decoded: it is damaged, cut off or empty.')
        if broken and self.live:
            silent = isinstance(broken, av.ExitError)
            why = f'sent nothing for {TIMEOUT:g} seconds' if silent else f'broke off ({_reason(broken)})'
            raise RunError(f'The stream {self.name} {why} after frame {count - 1}: the results until then are written.')
        # A video that was trimmed without being encoded anew announces the frames that it hides too.
        to_its_end = 0 < MIN_COMPLETE * self._length <= seconds + 1 / self.rate
        if broken or (count < MIN_COMPLETE * self._stated and not to_its_end):
            of = f' of {self._stated}' if self._stated else ''
            raise RunError(
                f'The video {self.name} is damaged or cut off after {count}{of} frames: their results are written.'
            )
        if damaged:
            raise RunError(
                f'The video {self.name} is damaged, {damaged} of its packets could not be decoded: the results of the '
                f'other {count} frames are written.'
            )


class Webcam:
    """A webcam by its number, as :class:`VideoSource`.

    Raises:
        InputError: there is none, or another program has it.
    """

    live, total, pixel_shape = True, None, Fraction(1)

    def __init__(self, number: str) -> None:
        self.name = f'webcam {number}'
        log = getattr(cv2.utils, 'logging', cv2)  # of OpenCV 5, and of 4
        level = log.setLogLevel(0)  # silent: it reports each device that it tries
        self._capture = cv2.VideoCapture(int(number))
        log.setLogLevel(level)
        if not self._capture.isOpened():
            raise InputError(f'There is no webcam {number}, or another program has it: give another number, from 0.')
        rate = self._capture.get(cv2.CAP_PROP_FPS)  # 0, −1 or NaN where it isn't known
        self.rate = Fraction(rate if 0 < rate < 1000 else 30).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames until the camera is gone, which is a RunError."""
        count, start = 0, time.monotonic()
        try:
            while self._capture.grab():
                yield Frame(count, time.monotonic() - start, self._image)
                count += 1
        finally:
            self._capture.release()
        raise RunError(f'The {self.name} sends no more frames: the results of {count} frames are written.')

    def _image(self) -> np.ndarray:
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise RunError(f'The {self.name} sent a frame that can not be decoded: the results until then are written.')
        return image


def open_source(name: str) -> VideoSource | Webcam:
    """Open a video file, a stream by its address or a webcam by its number.

    Raises:
        InputError: it can't be opened.
    """
    return Webcam(name) if is_stream(name) and name.isdecimal() else VideoSource(name)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as it is to be seen, (H, W, 3) in BGR."""
    untagged = frame.colorspace == UNSPECIFIED
    colours = Colorspace.ITU709 if untagged and frame.height >= UNTAGGED_HD else None
    image = frame.to_ndarray(format='bgr24', src_colorspace=colours)
    turn = TURNS.get(round(frame.rotation) % 360)
    return image if turn is None else cv2.rotate(image, turn)


def _reason(error: Exception) -> str:
    """Return what FFmpeg says of an error, without the address."""
    return (getattr(error, 'strerror', '') or type(error).__name__).strip().rstrip('.').lower()
