// Pasting of masks into the picture, by the rules of the Python package's mask_pasting.py, and COCO's run lengths.

export const CELLS = 28; // a mask's side

// First pixel along an axis, and the positions of it and the next ones in the mask, in cells.
const GRIDS = {
  sampled(low, high, pixels) {
    const first = Math.max(Math.floor(low) - 1, 0), last = Math.min(Math.ceil(high) + 1, pixels);
    return [first, positions(last - first, (i) => ((first + i + 0.5 - low) / (high - low)) * CELLS - 0.5)];
  },
  resized(low, high, pixels) {
    const centre = (low + high) / 2, half = (((high - low) / 2) * (CELLS + 2)) / CELLS;
    const start = Math.trunc(centre - half), size = Math.max(Math.trunc(centre + half) - start + 1, 1);
    const first = Math.max(start, 0), last = Math.min(start + size, pixels);
    return [first, positions(last - first, (i) => ((first - start + i + 0.5) * (CELLS + 2)) / size - 1.5)];
  },
};

function positions(count, at) {
  return Float32Array.from({ length: Math.max(count, 0) }, (_, i) => at(i));
}

// The pixels of an object in a picture of a width and height: those of a rectangle, 1 where they are the object's.
export function paste({ cells, box }, width, height, { pasting, mask_threshold: threshold }) {
  const [left, across] = GRIDS[pasting](box[0], box[2], width);
  const [top, down] = GRIDS[pasting](box[1], box[3], height);
  const bits = new Uint8Array(across.length * down.length);
  const columns = new Float32Array(CELLS * across.length); // the mask with its rows resized
  for (let row = 0; row < CELLS; row++) {
    for (let x = 0; x < across.length; x++) {
      columns[row * across.length + x] = interpolate(cells, across[x], row * CELLS, 1);
    }
  }
  const includes = pasting === 'sampled' ? (value) => value >= threshold : (value) => value > threshold;
  for (let y = 0, at = 0; y < down.length; y++) {
    for (let x = 0; x < across.length; x++, at++) {
      bits[at] = includes(interpolate(columns, down[y], x, across.length)) ? 1 : 0;
    }
  }
  return { left, top, width: across.length, height: down.length, bits };
}

// The value at a position between two of 28 values, which lie `step` apart from `offset` on; they are 0 outside.
function interpolate(values, position, offset, step) {
  const low = Math.floor(position), part = position - low;
  const before = low >= 0 && low < CELLS ? values[offset + low * step] : 0;
  const after = low >= -1 && low < CELLS - 1 ? values[offset + (low + 1) * step] : 0;
  return Math.fround(before * (1 - part) + after * part);
}

// COCO's run-length encoding of pasted pixels, and their number.
export function encode(mask, width, height) {
  const changes = []; // indices, column by column, at which runs of the object begin and end in turn
  let area = 0;
  for (let x = 0; x < mask.width; x++) {
    const column = (mask.left + x) * height + mask.top;
    let inside = 0;
    for (let y = 0; y <= mask.height; y++) {
      const bit = y < mask.height ? mask.bits[y * mask.width + x] : 0;
      area += bit;
      if (bit === inside) continue;
      inside = bit;
      if (bit && changes.at(-1) === column + y) changes.pop(); // goes on from the column before
      else changes.push(column + y);
    }
  }
  const counts = [...changes, width * height].map((end, i) => end - (i ? changes[i - 1] : 0));
  if (changes.length && !counts.at(-1)) counts.pop();
  return { area, rle: { size: [height, width], counts: compress(counts) } };
}

// The compressed form of COCO's counts: differences to the last but one, five bits a character.
function compress(counts) {
  let text = '';
  counts.forEach((count, i) => {
    let rest = i > 2 ? count - counts[i - 2] : count;
    for (let more = true; more; ) {
      const bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest !== -1 : rest !== 0;
      text += String.fromCharCode((more ? bits | 32 : bits) + 48);
    }
  });
  return text;
}
