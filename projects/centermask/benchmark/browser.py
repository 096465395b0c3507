"""Milliseconds an image in Chromium and by ONNX Runtime in Python, in turn: python -m centermask.benchmark.browser.

Images have 320 and 640 pixels along their longer side. Medians of the network's time alone and, of the page, of the
whole.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from centermask.datasets.images import check_image
from centermask.engine.cli import require_file, run
from centermask.export.runtime import ExportedModel
from centermask.utils.errors import InputError

SIZES = (320, 640)
ROUNDS = 15  # after one that isn't counted
# No network but the page's own host, and a camera that shows a test picture.
FLAGS = [
    '--no-sandbox',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-quic',
    '--disable-sync',
    '--no-first-run',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder as ``python -m http.server`` does; its address."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window, and yield Playwright's object of it.

    Raises:
        InputError: it or Playwright is absent.
    """
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None or find_spec('playwright') is None:
        raise InputError('Chromium or Playwright is missing: apt install chromium, pip install playwright.')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def page_of_size(site: Path, size: int, folder: Path) -> Path:
    """Return a folder with the same page and model, which resizes to a longer side of ``size`` pixels."""
    folder.mkdir()
    for path in site.iterdir():
        (folder / path.name).symlink_to(path.absolute())
    description = json.loads((site / 'model.json').read_text())
    (folder / 'model.json').unlink()
    (folder / 'model.json').write_text(json.dumps({**description, 'scale': [size, size]}))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('site', type=Path, help='folder that tools/export.py --format web wrote')
    parser.add_argument('image', type=Path, help='a photograph')
    args = parser.parse_args()
    require_file(args.site / 'model.json', 'model of the page')
    check_image(args.image)
    measure(args.site, args.image)


def measure(site: Path, image: Path) -> None:
    """Measure a site's model in the browser and in Python, and print the times."""
    threads = sorted({1, len(os.sched_getaffinity(0))})
    times: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as place, chromium() as browser:
        for size in SIZES:
            picture = Image.open(image).convert('RGB')
            picture.thumbnail((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)[None, :, :, ::-1]
            models = {n: ExportedModel(site / 'model.onnx', threads=n) for n in threads}
            with serve(page_of_size(site, size, Path(place) / str(size))) as url:
                pages = {}
                for n in threads:
                    pages[n] = browser.new_context().new_page()
                    pages[n].goto(f'{url}?device=wasm&threads={n}')
                    pages[n].get_by_text('Ready').wait_for()
                for i in range(ROUNDS + 1):
                    for n in threads:
                        begin = time.perf_counter()
                        models[n].run(pixels, np.array([pixels.shape[1:3]]))
                        network = 1e3 * (time.perf_counter() - begin)
                        record = times.setdefault(f'{size} pixels, {n} threads, Python', [])
                        record += [[network]] if i else []
                        time.sleep(0.2)  # its threads go on spinning
                        pages[n].set_input_files('#file', image)
                        pages[n].locator('#stage[aria-busy=false]').wait_for()
                        said = pages[n].get_by_text(' ms (network').inner_text()
                        assert f' {n} thread' in said, said
                        whole, network = map(float, re.findall(r'(\d+) ms', said))
                        record = times.setdefault(f'{size} pixels, {n} threads, Chromium', [])
                        record += [[network, whole]] if i else []
                for page in pages.values():
                    page.context.close()
    for name, record in times.items():
        print(name, ' whole '.join(f'{value:.0f} ms' for value in np.median(record, 0)), flush=True)


if __name__ == '__main__':
    sys.exit(run(main))
