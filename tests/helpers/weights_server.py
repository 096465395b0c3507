"""A server of checkpoint files on this machine, which misbehaves as real ones do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

PAGE = b'<!DOCTYPE html><html>Sign in to download</html>'


class WeightsServer(NamedTuple):
    """An address, and what is asked for and answered there.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        files: bytes by their path; other paths are answered by 404.
        faults: ``'half'``, ``'page'``, ``'slow'``, ``'stuck'`` or a status such as ``'403'``, by path.
        asked: paths in the order of the requests.
    """

    address: str
    files: dict[str, bytes]
    faults: dict[str, str]
    asked: list[str]


@contextmanager
def serve_weights() -> Iterator[WeightsServer]:
    """Serve while the block runs."""
    files: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    asked: list[str] = []
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition('?')[0]
            fault = faults.get(path, '')
            if fault.isdecimal() or path not in files:
                self.send_error(int(fault or 404))
                return
            content = PAGE if fault == 'page' else files[path]
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            if fault == 'half':
                content = content[: len(content) // 2]
            for start in range(0, len(content), step := len(content) // 5 + 1):
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
                if fault == 'slow':
                    time.sleep(0.1)
                if fault == 'stuck':
                    end.wait()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield WeightsServer(f'http://127.0.0.1:{http.server_port}', files, faults, asked)
        finally:
            end.set()
            http.shutdown()
