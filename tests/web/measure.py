"""Milliseconds an image in Chromium and by ONNX Runtime in Python, in turn: cd tests; python -m web.measure SITE IMAGE.

SITE is a folder of tools/export.py --format web. Images have 320 and 640 pixels along their longer side. Medians of the
network's time alone and, of the page, of the whole.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from helpers.browser import chromium, serve
from PIL import Image

from centermask.export.runtime import ExportedModel

SIZES = (320, 640)
ROUNDS = 15  # after one that isn't counted


def page_of_size(site: Path, size: int, folder: Path) -> Path:
    """Return a folder with the same page and model, which resizes to a longer side of ``size`` pixels."""
    folder.mkdir()
    for path in site.iterdir():
        (folder / path.name).symlink_to(path.absolute())
    description = json.loads((site / 'model.json').read_text())
    (folder / 'model.json').unlink()
    (folder / 'model.json').write_text(json.dumps({**description, 'scale': [size, size]}))
    return folder


def main(site: Path, image: Path) -> None:
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
    main(*map(Path, sys.argv[1:])) if len(sys.argv) == 3 else sys.exit(__doc__)
