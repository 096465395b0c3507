// Worker that holds the model: takes {id, bitmap}, answers {id, detections, …} or {id, error}.

import { CELLS } from './masks.js';
import { resize } from './resizing.js';

const options = new URLSearchParams(location.search); // device=wasm|webgpu and threads=N, for measurements
let ready;
begin(options.get('device'));

function begin(device) {
  ready = start(device);
  ready.then(
    ({ device, threads }) => postMessage({ ready: true, device, threads }),
    (error) => postMessage({ failed: true, error: String(error?.message ?? error) }),
  );
}

let queue = Promise.resolve(); // the model takes one picture at a time
onmessage = ({ data }) => (queue = queue.then(() => answer(data)));

async function answer({ id, bitmap }) {
  try {
    const found = await detectSomehow(bitmap);
    postMessage({ id, ...found }, found.detections.map(({ cells }) => cells.buffer));
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  } finally {
    bitmap.close();
  }
}

// WebAssembly goes on where WebGPU fails on a picture, as for want of memory.
async function detectSomehow(bitmap) {
  const model = await ready;
  try {
    return await detect(model, bitmap);
  } catch (error) {
    if (model.device === 'wasm') throw error;
    console.warn('WebGPU is not used:', error);
    begin('wasm');
    return detect(await ready, bitmap);
  }
}

async function start(wanted) {
  const metadata = await (await fetchFile('model.json')).json();
  const bytes = await fetchModel(metadata.file);
  if (wanted === 'webgpu' || (wanted !== 'wasm' && (await hasGpu()))) {
    try {
      const model = await open('webgpu', bytes, metadata);
      await run(model, { pixels: new Uint8ClampedArray(64 * 64 * 3), width: 64, height: 64 }); // compiles its shaders
      return model;
    } catch (error) {
      console.warn('WebGPU is not used:', error);
    }
  }
  return open('wasm', bytes, metadata);
}

async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

async function fetchFile(name) {
  const response = await fetch(name, { cache: 'no-cache' });
  if (!response.ok) throw new Error(`The file ${name} of this page can't be had (${response.status}).`);
  return response;
}

async function fetchModel(name) {
  const response = await fetchFile(name);
  const total = Number(response.headers.get('Content-Length')), chunks = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(chunks).arrayBuffer());
    chunks.push(value);
    loaded += value.length;
    postMessage({ loaded, total });
  }
}

// Open the model by the build of ONNX Runtime for "wasm" or "webgpu"; the second runs in WebAssembly what WebGPU can't.
async function open(device, bytes, metadata) {
  const runtime = await import(`./onnxruntime/${device}.js`);
  const { wasm } = runtime.env;
  wasm.wasmPaths = {
    mjs: new URL(`onnxruntime/${device}-module.js`, location.href).href,
    wasm: new URL(`onnxruntime/${device}.wasm`, location.href).href,
  };
  // Small processors give all cores, others half of them: more than eight threads wait for each other.
  const cores = navigator.hardwareConcurrency || 1;
  wasm.numThreads = self.crossOriginIsolated
    ? Number(options.get('threads')) || Math.max(Math.min(cores, 4), Math.min(cores >> 1, 8))
    : 1;
  const session = await runtime.InferenceSession.create(bytes, {
    executionProviders: device === 'webgpu' ? ['webgpu', 'wasm'] : ['wasm'],
    logSeverityLevel: 3,
  });
  return { runtime, session, metadata, device, threads: wasm.numThreads };
}

async function run({ runtime, session }, { pixels, width, height }) {
  return session.run({
    images: new runtime.Tensor('uint8', new Uint8Array(pixels.buffer), [1, height, width, 3]),
    sizes: new runtime.Tensor('int64', BigInt64Array.of(BigInt(height), BigInt(width)), [1, 2]),
  });
}

async function detect(model, bitmap) {
  const began = performance.now();
  const input = resize(bitmap, model.metadata);
  const resized = performance.now();
  const outputs = await run(model, input);
  const ended = performance.now();
  const detections = read(outputs, model.metadata, bitmap, input);
  return {
    detections,
    input: [input.width, input.height],
    milliseconds: { resize: resized - began, network: ended - resized, all: performance.now() - began },
  };
}

// Detections in pixels of the picture. In the star recipe boxes are clipped to it once more, as in the Python package.
function read({ boxes, labels, scores, mask_scores: maskScores, masks }, { pasting }, bitmap, input) {
  const limits = pasting === 'sampled' ? [bitmap.width, bitmap.height] : [Infinity, Infinity];
  const factors = [input.width / bitmap.width, input.height / bitmap.height];
  const detections = [];
  for (let i = 0; i < scores.data.length; i++) {
    const box = Float32Array.from(boxes.data.subarray(4 * i, 4 * i + 4), (value, k) => value / factors[k % 2]);
    if (pasting === 'sampled') box.forEach((value, k) => (box[k] = Math.min(Math.max(value, 0), limits[k % 2])));
    if (pasting === 'sampled' && !(box[2] > box[0] && box[3] > box[1])) continue;
    const cells = masks.data.slice(CELLS ** 2 * i, CELLS ** 2 * (i + 1));
    const label = Number(labels.data[i]);
    detections.push({ box, label, score: scores.data[i], maskScore: maskScores.data[i], cells });
  }
  return detections;
}
