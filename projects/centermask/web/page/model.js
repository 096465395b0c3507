// The model in its worker, detector.js.

let worker, tell;
let requests = 0;
const waiting = new Map(); // callbacks by the number of a request

// Start the worker. `listeners` are loading(bytes, total), ready(engine) and failed(reason).
export function startModel(listeners) {
  tell = listeners;
  worker = new Worker(`detector.js${location.search}`, { type: 'module' });
  worker.onmessage = ({ data }) => {
    if (data.loaded) tell.loading(data.loaded, data.total);
    else if (data.ready) tell.ready(engineName(data));
    else if (data.failed) tell.failed(data.error);
    else waiting.get(data.id)?.(data);
  };
  worker.onerror = () => tell.failed('this browser may be too old.');
}

function engineName({ device, threads }) {
  return device === 'webgpu' ? 'WebGPU' : `WebAssembly, ${threads} thread${threads > 1 ? 's' : ''}`;
}

// Find the objects on an ImageBitmap, which is used up.
export async function detect(bitmap) {
  const id = ++requests;
  const answer = new Promise((resolve) => waiting.set(id, resolve));
  worker.postMessage({ id, bitmap }, [bitmap]);
  const found = await answer;
  waiting.delete(id);
  if (!found.error) return found;
  if (!waiting.size) { // else the next picture is tried first, which would get no answer
    worker.terminate(); // it may have run out of memory, after which WebAssembly doesn't go on
    startModel(tell);
  }
  throw new Error(`The model fails on this picture (${found.error.slice(0, 120)}): try a smaller one.`);
}
