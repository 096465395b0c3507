"""The page in Chromium, with a small trained model: its objects against Python's, bad pictures, keyboard, camera."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from mmdet.structures import DetDataSample
from PIL import Image

from centermask.benchmark.browser import chromium, serve
from centermask.engine.cli import run
from centermask.engine.configs import load_config
from centermask.engine.inferencer import CenterMaskInferencer

for package in ('onnx', 'onnxscript', 'onnxruntime', 'playwright'):
    pytest.importorskip(package)
for program in ('chromium', 'npm'):
    if shutil.which(program) is None:
        pytest.skip(f'{program} is not installed', allow_module_level=True)
pytestmark = pytest.mark.slow

ITERATIONS = 80  # enough to learn four images by heart


@pytest.fixture(scope='module')
def config(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the config of a training that finds objects with confidence."""
    path = tmp_path_factory.mktemp('trained') / 'trained.py'
    path.write_text(f"""
_base_ = '{tiny_config}'
model = dict(test_cfg=dict(score_thr=0.05))
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_iters={ITERATIONS}, val_interval={ITERATIONS + 1})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=10, end={ITERATIONS}, eta_min=0),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval={ITERATIONS}))
""")
    return path


@pytest.fixture(scope='module')
def site(config: Path, tools: Callable) -> Path:
    """Return the folder of a page, exported by the command in place of an older one."""
    run_dir, out = config.parent / 'run', config.parent / 'site'
    tools('train')([str(config), '--work-dir', str(run_dir)])
    out.mkdir()
    for name in ('model.json', 'detector.js', 'old'):
        (out / name).touch()
    command = [str(config), str(run_dir / f'iter_{ITERATIONS}.pth'), '--format', 'web', '--out', str(out)]
    assert run(lambda: tools('export')(command)) == 0
    assert not (out / 'old').exists() and (out / 'onnxruntime/LICENSE.txt').is_file()
    (out.parent / 'mine').mkdir()
    (out.parent / 'mine/letter.txt').touch()
    assert run(lambda: tools('export')([*command[:-1], str(out.parent / 'mine')])) == 2
    return out


@pytest.fixture(scope='module')
def browser() -> Iterator:
    with chromium() as started:
        yield started


@pytest.fixture(scope='module')
def address(site: Path) -> Iterator[str]:
    with serve(site) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator:
    """Return the page, ready, in a context of its own; what it says on the console is an error."""
    said: list[str] = []
    context = browser.new_context()
    opened = context.new_page()
    opened.on('console', lambda message: said.append(message.text))
    opened.on('pageerror', lambda error: said.append(str(error)))
    opened.goto(address)
    opened.get_by_text('Ready').wait_for(timeout=120_000)
    yield opened
    context.close()
    assert said == []


def show(page: Any, path: Path) -> None:
    """Choose a picture and wait until it is looked at."""
    page.set_input_files('#file', path)
    page.locator('#stage[aria-busy=false]').wait_for(timeout=120_000)


def hold(page: Any) -> None:
    """Keep the next picture from the model, which fails on it when ``fail()`` is called."""
    page.evaluate(
        """() => {
            const post = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function ({ id }) {
                Worker.prototype.postMessage = post;
                window.fail = () => this.onmessage({ data: { id, error: 'no memory' } });
            };
        }"""
    )


def download(page: Any) -> dict:
    """Return what the button gives."""
    with page.expect_download() as waiting:
        page.get_by_role('button', name='Download JSON').click()
    return json.loads(Path(waiting.value.path()).read_text())


def compare(found: dict, sample: DetDataSample, classes: list[str]) -> None:
    """Check that the page's objects are Python's."""
    expected = sample.pred_instances
    height, width = sample.ori_shape
    (image,) = found['images']
    assert (image['height'], image['width']) == (height, width)
    assert len(found['annotations']) == len(expected) > 2
    assert (expected.scores > 0.5).sum() > 2
    for i, annotation in enumerate(found['annotations']):  # by falling score, as Python's are
        left, top, right, bottom = expected.bboxes[i].tolist()
        assert annotation['category_name'] == classes[expected.labels[i]]
        np.testing.assert_allclose(annotation['bbox'], [left, top, right - left, bottom - top], atol=1)
        assert abs(annotation['score'] - float(expected.scores[i])) < 1e-3
        assert abs(annotation['mask_score'] - float(expected.mask_scores[i])) < 1e-3
        rle = {**annotation['segmentation'], 'counts': annotation['segmentation']['counts'].encode()}
        assert annotation['area'] == coco_mask.area(rle)
        mask = dict(expected.masks[i])
        empty = annotation['area'] == coco_mask.area(mask) == 0  # which pycocotools gives an IoU of 0
        assert empty or coco_mask.iou([rle], [mask], [0])[0, 0] >= 0.99


@pytest.fixture(scope='module')
def pictures(site: Path, tiny_config: Path) -> list[Path]:
    """Return pictures that are resized: enlarged, of one of the data set; a JPEG lies on its side by EXIF."""
    source = Image.open(sorted((tiny_config.parent / 'shapes/train/images').iterdir())[1]).convert('RGB')
    large, turned = site.parent / 'large.png', site.parent / 'turned.jpg'
    source.resize((1000, 730), Image.Resampling.BICUBIC).save(large)
    exif = Image.Exif()
    exif[0x0112] = 6
    source.resize((300, 320)).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    return [large, turned]


def test_finds_what_python_finds(page: Any, site: Path, config: Path, pictures: list[Path]) -> None:
    inferencer = CenterMaskInferencer(load_config(str(config), {}), str(site / 'model.onnx'), 'cpu')
    assert page.evaluate('crossOriginIsolated')  # by the service worker: the server sends no headers
    page.locator('#threshold').fill('0')
    for path in pictures:
        show(page, path)
        sample = inferencer(str(path), return_datasamples=True)['predictions'][0]
        compare(download(page), sample, inferencer.model.dataset_meta['classes'])
        assert re.search(r'\d+ objects in \d+ ms .* by WebAssembly', page.locator('#status').inner_text())


def test_bad_pictures_give_a_sentence(page: Any, pictures: list[Path], tmp_path: Path) -> None:
    """After each the page goes on."""
    content = pictures[0].read_bytes()
    (tmp_path / 'text.png').write_text('not a picture')
    (tmp_path / 'damaged.png').write_bytes(content[:40] + bytes(60) + content[100:])
    Image.new('1', (12000, 12000)).save(tmp_path / 'huge.png')
    for name, sentence in [
        ('text.png', 'text.png is no picture that this browser can read, or it is damaged.'),
        ('damaged.png', 'damaged.png'),
        ('huge.png', 'huge.png has 12000×12000 pixels, more than 100 million: make it smaller.'),
    ]:
        show(page, tmp_path / name)
        assert sentence in page.get_by_role('alert').inner_text()
    show(page, pictures[1])
    assert page.get_by_role('alert').count() == 0 and ' ms ' in page.locator('#status').inner_text()


def test_results_go_with_their_picture(page: Any, pictures: list[Path]) -> None:
    """They aren't shown beside one on which the model fails, after which the page goes on."""
    show(page, pictures[0])
    shown = page.locator('#classes:visible, #objects:visible, #download:enabled')
    assert shown.count() == 3
    hold(page)
    page.set_input_files('#file', pictures[1])
    page.locator('canvas[aria-label="turned.jpg"]').wait_for()
    assert shown.count() == 0
    page.evaluate(
        """() => {
            const status = document.getElementById('status');
            new MutationObserver(() => {
                if (status.textContent.startsWith('Loading')) status.dataset.loaded = '';
            }).observe(status, { childList: true });
            fail();
        }"""
    )
    page.locator('#stage[aria-busy=false]').wait_for()
    assert 'The model fails on this picture (no memory)' in page.get_by_role('alert').inner_text()
    page.locator('#status[data-loaded]', has_text='Ready').wait_for()
    assert shown.count() == 0
    show(page, pictures[0])
    assert shown.count() == 3 and len(download(page)['annotations']) > 2


def test_camera_takes_over_from_a_picture(page: Any, pictures: list[Path]) -> None:
    hold(page)
    page.set_input_files('#file', pictures[0])
    page.get_by_text('Looking for objects').wait_for()
    page.get_by_role('button', name='Use the camera').click()
    page.locator('canvas[aria-label^="camera.png: "]').wait_for(timeout=120_000)
    page.evaluate('fail()')
    assert page.get_by_role('alert').count() == 0
    assert page.locator('#stage').get_attribute('aria-busy') == 'false'


def test_keyboard_on_a_phones_width(page: Any, pictures: list[Path]) -> None:
    page.set_viewport_size({'width': 390, 'height': 844})
    show(page, pictures[0])
    before = len(download(page)['annotations'])
    assert before > 2
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    page.locator('#file').focus()
    order = []
    for _ in range(8):
        page.keyboard.press('Tab')
        order.append(page.evaluate('document.activeElement.id || document.activeElement.type'))
    assert order[:5] == ['camera', 'threshold', 'all', 'none', 'checkbox']
    page.locator('#classes input').first.focus()
    page.keyboard.press('Space')
    page.wait_for_timeout(100)  # the list is written anew
    assert page.evaluate("document.activeElement.matches('#classes input:not(:checked)')")
    assert len(download(page)['annotations']) < before
    page.get_by_role('button', name='All').press('Enter')
    page.locator('#threshold').press('End')
    page.locator('canvas[aria-label="large.png: 0 objects"]').wait_for()
    page.locator('#threshold').press('Home')
    page.get_by_text('List of objects').press('Enter')
    buttons = page.locator('#objects button')
    buttons.nth(before - 1).wait_for(state='attached')
    plain = page.locator('canvas').screenshot()
    buttons.first.focus()
    assert page.locator('canvas').screenshot() != plain  # it is marked


def test_drop_paste_and_camera(page: Any, pictures: list[Path]) -> None:
    content = [*pictures[1].read_bytes()]
    for event, field in (('drop', 'dataTransfer'), ('paste', 'clipboardData')):
        page.evaluate(
            """([event, field, content]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(content)], `${event}.jpg`, {type: 'image/jpeg'}));
                const type = event === 'drop' ? DragEvent : ClipboardEvent;
                document.dispatchEvent(new type(event, {[field]: data, bubbles: true}));
            }""",
            [event, field, content],
        )
        page.locator('#stage[aria-busy=false]').wait_for(timeout=120_000)
        assert page.locator(f'canvas[aria-label^="{event}.jpg: "]').count() == 1
    page.evaluate(
        """() => {
            const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
            window.streams = [];
            devices.getUserMedia = async (wanted) => streams[streams.push(await ask(wanted)) - 1];
            document.getElementById('camera').click();
            document.getElementById('camera').click(); // before it is there
        }"""
    )
    page.locator('canvas[aria-label^="camera.png: "]').wait_for(timeout=120_000)
    page.get_by_role('button', name='Stop the camera').click()
    assert page.evaluate('streams.map(({ active }) => active)') == [False, False]
    assert page.get_by_role('alert').count() == 0


def test_without_storage(browser: Any, address: str) -> None:
    """Where a browser blocks the data of sites, the page has one thread."""
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    opened = context.new_page()
    opened.goto(address)
    opened.get_by_text('Ready (WebAssembly, 1 thread)').wait_for(timeout=120_000)
    context.close()


def test_without_service_worker_and_from_a_file(browser: Any, address: str, site: Path, pictures: list[Path]) -> None:
    context = browser.new_context(service_workers='block')
    opened = context.new_page()
    opened.goto(address)
    opened.get_by_text('WebAssembly, 1 thread').wait_for(timeout=120_000)
    show(opened, pictures[1])
    assert ' by WebAssembly, 1 thread' in opened.locator('#status').inner_text()
    opened.goto((site / 'index.html').as_uri())
    opened.get_by_text('python -m http.server -d site').wait_for()
    context.close()
