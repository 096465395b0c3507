"""Small videos, and a server that streams them. Tests that import this are skipped where PyAV isn't installed."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip('av', reason="PyAV isn't installed: make programs")

SIZE = (96, 128)


def moving_square(frames: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Return RGB images (H, W, 3): a white square moves to the right on green; the upper left corner is red."""
    images = np.full((frames, *size, 3), (40, 120, 60), np.uint8)
    images[:, :16, :16] = (200, 30, 30)
    for i, image in enumerate(images):
        image[40:60, 20 + 3 * i : 40 + 3 * i] = 255
    return [*images]


def write_video(
    path: Path | str,
    images: Sequence[np.ndarray],
    seconds: Sequence[float] | None = None,
    rotation: int = 0,
    format: str | None = None,
    **options: str,
) -> None:
    """Write RGB images as H.264 at 25 frames a second or at times; the rotation is counter-clockwise, for players."""
    with av.open(str(path), 'w', format=format, options=options) as container:
        stream = container.add_stream('libx264', rate=25, options={'crf': '10', 'bf': '0', 'g': '10'})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, 'rgb24')
            frame.pts, frame.time_base = round(1000 * (seconds[i] if seconds else i / 25)), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path | str) -> tuple[list[np.ndarray], list[float], Fraction]:
    """Return the RGB images of a video, their times and the frames a second."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        rate = container.streams.video[0].average_rate
    return [frame.to_ndarray(format='rgb24') for frame in frames], [frame.time for frame in frames], rate


@contextmanager
def streamed(content: bytes, seconds: float, then_silent: bool = False) -> Iterator[str]:
    """Send a file in a live stream's way, spread over a time and without a length, and yield its address.

    Args:
        content: of a file that is read from its beginning, such as MPEG-TS.
        seconds: how long sending takes.
        then_silent: whether the connection stays open without data.
    """
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            parts = [content[i : i + 1880] for i in range(0, len(content), 1880)]
            try:
                for part in parts:
                    self.wfile.write(part)
                    time.sleep(seconds / len(parts))
            except OSError:  # the reader is gone
                return
            if then_silent:
                done.wait()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/live'
    finally:
        done.set()
        server.shutdown()
        server.server_close()
