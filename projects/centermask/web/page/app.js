// The page: takes pictures and frames of the camera, shows what the model finds on them.

import { toCoco } from './coco.js';
import { draw, drawingSize } from './drawing.js';
import { countByLabel, listClasses, listObjects } from './lists.js';
import { detect, startModel } from './model.js';
import { decode } from './pictures.js';

const byId = (id) => document.getElementById(id);
const canvas = byId('canvas'), stage = byId('stage'), video = byId('video'), threshold = byId('threshold');
const switchedOff = new Set(); // labels of classes
let metadata; // of the model
let engine = ''; // what runs the model
let picture = null; // name, width, height, pixels of the drawing, detections, milliseconds, input
let selected = null; // number of an object
let camera = null; // MediaStream
let turn = 0; // number of the last picture or frame; answers about older ones are dropped

function say(sentence) {
  byId('status').textContent = sentence;
}

function complain(sentence) {
  byId('error').textContent = sentence;
  byId('error').hidden = !sentence;
}

function sayReady() {
  say(engine ? `Ready (${engine}).` : '');
}

// Threads need headers of the host; where it sends none, a service worker adds them from the next loading on.
async function isolate() {
  try { // browsers that block the data of sites throw where these are read
    if (window.crossOriginIsolated || !navigator.serviceWorker || sessionStorage.getItem('isolated')) return;
    await navigator.serviceWorker.register('isolate.js');
    const late = new Promise((resolve) => setTimeout(resolve, 5000)); // where the browser blocks such workers
    if (!(await Promise.race([navigator.serviceWorker.ready, late]))) return;
    sessionStorage.setItem('isolated', 'tried');
    location.reload();
    await new Promise(() => {});
  } catch (error) {
    console.info('One thread only:', error);
  }
}

// ---- Pictures and the camera

async function openPicture(file) {
  if (!file) return;
  stopCamera();
  complain('');
  stage.setAttribute('aria-busy', 'true');
  const mine = ++turn;
  try {
    const name = file.name || 'picture';
    say(`Reading ${name}`);
    await show(await decode(file, name, metadata.max_pixels), name, mine);
    requestAnimationFrame(() => mine === turn && stage.setAttribute('aria-busy', 'false')); // once it is drawn
  } catch (error) {
    if (mine !== turn) return;
    stage.setAttribute('aria-busy', 'false');
    sayReady();
    complain(error.message);
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

async function startCamera() {
  complain('');
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 640 } } });
  } catch (error) {
    const reason = window.isSecureContext ? error.message : 'open it by https or as localhost';
    complain(`There is no camera for this page: ${reason}.`);
    return;
  }
  stopCamera(); // another one, where the button was pressed twice
  camera = video.srcObject = stream;
  stage.setAttribute('aria-busy', 'false'); // a picture that is being looked at is dropped
  showCameraState();
  try {
    await video.play();
    while (camera === stream) await show(await createImageBitmap(video), 'camera.png', ++turn);
  } catch (error) {
    if (camera !== stream) return;
    stopCamera();
    complain(error.message);
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = video.srcObject = null;
  showCameraState();
}

function showCameraState() {
  byId('camera').textContent = camera ? 'Stop the camera' : 'Use the camera';
  byId('camera').setAttribute('aria-pressed', String(Boolean(camera)));
}

// ---- What is shown

const reached = () => picture.detections.filter(({ score }) => score >= threshold.value);
const shown = () => reached().filter(({ label }) => !switchedOff.has(label));

let frame = 0;
function refresh() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    byId('threshold-value').textContent = Number(threshold.value).toFixed(2);
    if (!picture) return;
    if (canvas.width !== picture.pixels.width || canvas.height !== picture.pixels.height) {
      canvas.width = picture.pixels.width;
      canvas.height = picture.pixels.height;
    }
    canvas.hidden = false;
    byId('invitation').hidden = true;
    stage.classList.add('filled');
    const objects = shown();
    draw(canvas, picture.pixels, picture, objects, metadata, selected);
    const known = Boolean(picture.milliseconds); // else it is being looked at, or the model failed on it
    byId('controls').classList.toggle('unknown', !known);
    byId('download').disabled = !known;
    canvas.setAttribute('aria-label', picture.name); // to which summarise() adds objects
    if (!known) return;
    listClasses(byId('classes'), reached(), metadata.classes, switchedOff, refresh);
    listObjects(byId('objects'), objects, metadata.classes, select);
    summarise(objects);
  });
}

function summarise(objects) {
  const total = `${objects.length} object${objects.length === 1 ? '' : 's'}`;
  const counts = countByLabel(objects).map(([label, count]) => `${count} ${metadata.classes[label]}`);
  canvas.setAttribute('aria-label', [`${picture.name}: ${total}`, counts.join(', ')].filter(Boolean).join(': '));
  const { all, network } = picture.milliseconds, [width, height] = picture.input;
  const times = `${all.toFixed(0)} ms (network ${network.toFixed(0)} ms)`;
  say(`${total} in ${times} at ${width}×${height} pixels by ${engine}`);
}

function select(number) {
  if (number === selected) return;
  selected = number;
  draw(canvas, picture.pixels, picture, shown(), metadata, selected);
}

// The number of the smallest object whose box is under the pointer.
function numberAt({ offsetX, offsetY }) {
  const x = (offsetX / canvas.clientWidth) * picture.width, y = (offsetY / canvas.clientHeight) * picture.height;
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  const under = shown().filter(({ box }) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3]);
  return under.sort((a, b) => area(a) - area(b))[0]?.number ?? null;
}

function download() {
  const text = JSON.stringify(toCoco(picture, shown(), metadata));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = `${picture.name.replace(/\.[^.]*$/, '')}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- Controls

function listen() {
  byId('file').onchange = ({ target }) => {
    openPicture(target.files[0]);
    target.value = ''; // so that the same file can be chosen again
  };
  document.onpaste = ({ clipboardData }) => openPicture(clipboardData.files[0]);
  document.ondragover = (event) => {
    event.preventDefault();
    stage.classList.add('over');
  };
  document.ondragleave = ({ relatedTarget }) => relatedTarget || stage.classList.remove('over');
  document.ondrop = (event) => {
    event.preventDefault();
    stage.classList.remove('over');
    openPicture(event.dataTransfer.files[0]);
  };
  byId('camera').onclick = () => (camera ? stopCamera() : startCamera());
  canvas.onpointermove = (event) => select(numberAt(event));
  canvas.onpointerleave = () => select(null);
  window.onresize = refresh; // labels keep their size
  threshold.oninput = refresh;
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
  metadata = await (await fetch('model.json', { cache: 'no-cache' })).json();
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  startModel({
    loading: (bytes, total) => say(`Loading the model: ${megabytes(bytes)}${total ? ` of ${megabytes(total)}` : ''} MB`),
    ready(name) {
      engine = name;
      if (!camera && stage.getAttribute('aria-busy') !== 'true') sayReady(); // it may have failed on a picture
    },
    failed(reason) {
      say('');
      complain(`The model can't be started: ${reason}`);
    },
  });
  listen();
}

main().catch((error) => complain(`The page can't start: ${error.message}`));
