// The page: takes pictures, has them looked at by detector.js, shows what it finds.

import { toCoco } from './coco.js';
import { colour, draw, drawingSize } from './drawing.js';

const byId = (id) => document.getElementById(id);
const canvas = byId('canvas'), stage = byId('stage'), video = byId('video'), threshold = byId('threshold');
const switchedOff = new Set(); // labels of classes
let metadata, worker, engine;
let picture = null; // {name, width, height}, pixels for the drawing, detections
let selected = null; // number of an object
let camera = null; // MediaStream
let turn = 0; // number of the last picture or frame; answers about older ones are dropped
let requests = 0;
const waiting = new Map(); // callbacks by the number of a request

function say(sentence) {
  byId('status').textContent = sentence;
}

function complain(sentence) {
  byId('error').textContent = sentence;
  byId('error').hidden = !sentence;
}

// ---- The model

// Threads need headers of the host; where it sends none, a service worker adds them from the next loading on.
async function isolate() {
  if (window.crossOriginIsolated || !navigator.serviceWorker || sessionStorage.getItem('isolated')) return;
  try {
    await navigator.serviceWorker.register('isolate.js');
    await navigator.serviceWorker.ready;
    sessionStorage.setItem('isolated', 'tried');
    location.reload();
    await new Promise(() => {});
  } catch (error) {
    console.warn('One thread only:', error);
  }
}

function startWorker() {
  worker = new Worker(`detector.js${location.search}`, { type: 'module' });
  worker.onmessage = ({ data }) => {
    if (data.loaded) {
      const total = data.total ? ` of ${megabytes(data.total)}` : '';
      say(`Loading the model: ${megabytes(data.loaded)}${total} MB`);
    } else if (data.ready) {
      const threads = `${data.threads} thread${data.threads > 1 ? 's' : ''}`;
      engine = data.device === 'webgpu' ? 'WebGPU' : `WebAssembly, ${threads}`;
      if (!picture) say(`Ready (${engine}).`);
    } else if (data.failed) {
      say('');
      complain(`The model can't be started: ${data.error} Reload the page, or export it again.`);
    } else {
      waiting.get(data.id)?.(data);
      waiting.delete(data.id);
    }
  };
  worker.onerror = () => complain('The model can\'t be started in this browser, which may be too old: update it.');
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

async function detect(bitmap) {
  const id = ++requests;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  worker.postMessage({ id, bitmap }, [bitmap]);
  const found = await answer;
  if (!found.error) return found;
  worker.terminate(); // it may have run out of memory, after which WebAssembly doesn't go on
  startWorker();
  throw new Error(`The model fails on this picture (${found.error.slice(0, 120)}): try a smaller one.`);
}

// ---- Pictures

async function openPicture(file) {
  stopCamera();
  complain('');
  stage.setAttribute('aria-busy', 'true');
  const mine = ++turn;
  try {
    const name = file.name || 'picture';
    await checkPicture(file, name);
    say(`Reading ${name}`);
    const bitmap = await createImageBitmap(file, {
      imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none',
    }).catch(() => {
      throw new Error(`${name} can't be read: it is damaged, or too large for this browser.`);
    });
    await show(bitmap, name, mine);
  } catch (error) {
    say(engine ? `Ready (${engine}).` : '');
    complain(error.message);
  }
  if (mine === turn) stage.setAttribute('aria-busy', 'false');
}

// Refuse what is no picture or too large, before it is decoded.
async function checkPicture(file, name) {
  const image = new Image(), url = URL.createObjectURL(file);
  const loaded = new Promise((resolve) => {
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
  });
  image.src = url;
  const readable = await loaded;
  URL.revokeObjectURL(url);
  if (!readable) throw new Error(`${name} is no picture that this browser can read, or it is damaged.`);
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width * height > metadata.max_pixels) {
    const most = Math.round(metadata.max_pixels / 1e6);
    throw new Error(`${name} has ${width}×${height} pixels, more than ${most} million: make it smaller.`);
  }
}

async function show(bitmap, name, mine) {
  const { width, height } = bitmap;
  const [drawnWidth, drawnHeight] = drawingSize(width, height);
  const scratch = new OffscreenCanvas(drawnWidth, drawnHeight).getContext('2d', { willReadFrequently: true });
  scratch.imageSmoothingQuality = 'high';
  scratch.drawImage(bitmap, 0, 0, drawnWidth, drawnHeight);
  const pixels = scratch.getImageData(0, 0, drawnWidth, drawnHeight);
  if (!camera) {
    picture = { name, width, height, pixels, detections: [] };
    refresh();
    say(engine ? 'Looking for objects' : 'Looking for objects as soon as the model is loaded');
  }
  const { detections, milliseconds, input } = await detect(bitmap);
  if (mine !== turn) return;
  detections.forEach((detection, number) => (detection.number = number));
  picture = { name, width, height, pixels, detections, milliseconds, input };
  selected = null;
  refresh();
}

// ---- The camera

async function startCamera() {
  complain('');
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 640 } } });
  } catch (error) {
    const insecure = !window.isSecureContext;
    complain(`There is no camera for this page: ${insecure ? 'open it by https or as localhost.' : error.message + '.'}`);
    return;
  }
  byId('camera').textContent = 'Stop the camera';
  byId('camera').setAttribute('aria-pressed', 'true');
  video.srcObject = camera;
  await video.play();
  try {
    while (camera) await show(await createImageBitmap(video), 'camera.png', ++turn);
  } catch (error) {
    stopCamera();
    complain(error.message);
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  video.srcObject = null;
  byId('camera').textContent = 'Use the camera';
  byId('camera').setAttribute('aria-pressed', 'false');
}

// ---- What is shown

const shown = () =>
  picture?.detections.filter(({ score, label }) => score >= threshold.value && !switchedOff.has(label)) ?? [];

let drawing = 0;
function refresh() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => {
    byId('threshold-value').textContent = Number(threshold.value).toFixed(2);
    if (!picture) return;
    if (canvas.width !== picture.pixels.width || canvas.height !== picture.pixels.height) {
      canvas.width = picture.pixels.width;
      canvas.height = picture.pixels.height;
    }
    canvas.hidden = false;
    stage.classList.add('filled');
    byId('invitation').hidden = true;
    const objects = shown();
    draw(canvas, picture.pixels, picture, objects, metadata, selected);
    if (!picture.milliseconds) return;
    listClasses();
    listObjects(objects);
    summarise(objects);
  });
}

function summarise(objects) {
  const counts = countByLabel(objects).map(([label, count]) => `${count} ${metadata.classes[label]}`);
  const noun = objects.length === 1 ? 'object' : 'objects';
  canvas.setAttribute('aria-label', `${picture.name}: ${objects.length} ${noun}${counts.length ? ': ' : ''}${counts.join(', ')}`);
  const { all, network } = picture.milliseconds, [width, height] = picture.input;
  say(
    `${objects.length} ${noun} in ${all.toFixed(0)} ms (network ${network.toFixed(0)} ms) ` +
      `at ${width}×${height} pixels by ${engine}`,
  );
  byId('download').disabled = false;
}

// Pairs of a label and its number of objects, the most frequent first.
function countByLabel(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

// Classes that reach the threshold, whether they are switched on or off. Boxes that stay keep the keyboard's focus.
function listClasses() {
  const list = byId('classes').querySelector('ul');
  const counted = countByLabel(picture.detections.filter(({ score }) => score >= threshold.value));
  const known = new Map([...list.children].map((item) => [Number(item.dataset.label), item]));
  const items = counted.map(([label, count]) => {
    const item = known.get(label) ?? classItem(label);
    item.querySelector('input').checked = !switchedOff.has(label);
    item.querySelector('small').textContent = count;
    return item;
  });
  if (items.some((item, i) => list.children[i] !== item) || items.length !== list.children.length) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    focused?.focus();
  }
  byId('classes').hidden = !items.length;
}

function classItem(label) {
  const item = element('li'), line = element('label'), box = element('input'), swatch = element('span');
  item.dataset.label = label;
  box.type = 'checkbox';
  box.onchange = () => {
    switchedOff[box.checked ? 'delete' : 'add'](label);
    refresh();
  };
  swatch.className = 'swatch';
  swatch.style.background = metadata.classes.length > 1 ? `rgb(${colour(label)})` : 'currentColor';
  line.append(box, swatch, metadata.classes[label], element('small'));
  item.append(line);
  return item;
}

function listObjects(objects) {
  const list = byId('objects').querySelector('ol');
  byId('objects').hidden = !objects.length;
  if (!byId('objects').open) return list.replaceChildren();
  const focused = document.activeElement?.dataset.number;
  list.replaceChildren(
    ...objects.map(({ number, label, score, box }) => {
      const item = element('li'), button = element('button');
      const [left, top, right, bottom] = [...box].map(Math.round);
      button.type = 'button';
      button.dataset.number = number;
      button.textContent = `${metadata.classes[label]} ${score.toFixed(2)} at ${left}, ${top}, ${right - left}×${bottom - top}`;
      button.onfocus = button.onpointerenter = () => select(number);
      item.append(button);
      return item;
    }),
  );
  if (focused !== undefined) list.querySelector(`[data-number="${focused}"]`)?.focus();
}

function element(name) {
  return document.createElement(name);
}

function select(number) {
  if (number === selected) return;
  selected = number;
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(() => picture && draw(canvas, picture.pixels, picture, shown(), metadata, selected));
}

// The smallest object whose box is under the pointer.
canvas.onpointermove = ({ offsetX, offsetY }) => {
  const x = (offsetX / canvas.clientWidth) * picture.width, y = (offsetY / canvas.clientHeight) * picture.height;
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const under = shown().filter(({ box }) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3]);
  select(under.sort((a, b) => area(a.box) - area(b.box))[0]?.number ?? null);
};
canvas.onpointerleave = () => select(null);

function download() {
  const text = JSON.stringify(toCoco(picture, shown(), metadata));
  const link = element('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = `${picture.name.replace(/\.[^.]*$/, '')}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- Controls

function listen() {
  const open = (files) => files?.length && openPicture(files[0]);
  byId('file').onchange = ({ target }) => {
    open(target.files);
    target.value = ''; // so that the same file can be chosen again
  };
  document.addEventListener('paste', ({ clipboardData }) => open(clipboardData.files));
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    stage.classList.add('over');
  });
  document.addEventListener('dragleave', ({ relatedTarget }) => relatedTarget || stage.classList.remove('over'));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    stage.classList.remove('over');
    open(event.dataTransfer.files);
  });
  byId('camera').onclick = () => (camera ? stopCamera() : startCamera());
  threshold.oninput = refresh;
  window.onresize = refresh; // labels keep their size
  byId('all').onclick = () => {
    switchedOff.clear();
    refresh();
  };
  byId('none').onclick = () => {
    metadata.classes.forEach((_, label) => switchedOff.add(label));
    refresh();
  };
  byId('objects').ontoggle = refresh;
  byId('download').onclick = download;
}

async function main() {
  say('Loading the model');
  await isolate();
  const response = await fetch('model.json', { cache: 'no-cache' });
  metadata = await response.json();
  startWorker();
  listen();
}

main().catch((error) => complain(`The page can't start: ${error.message}`));
