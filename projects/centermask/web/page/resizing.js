// Resizing as the model's test pipeline does it: Pillow's antialiased bilinear filter, bit by bit the same.

const PRECISION = 22; // bits of a weight behind the point
const STRIPE = 1 << 22; // pixels of the picture read at once

// Width and height by a rule of centermask.Resize: "nearest" is round_size of the Python package, "down" floor_size.
function resizedSize(width, height, [longest, shortest], rounding) {
  const shorter = Math.min(width, height), longer = Math.max(width, height);
  if (rounding === 'down') {
    let small = shortest;
    if ((longer / shorter) * small > longest) small = roundHalfToEven((longest * shorter) / longer);
    const large = small >= 2 ? Math.trunc((small * longer) / shorter) : longest;
    small = Math.max(2, small);
    return width < height ? [small, large] : [large, small];
  }
  let factor = shortest / shorter;
  let lengths = [width, height].map((side) => (side === shorter ? shortest : side * factor));
  if (Math.max(...lengths) > longest) {
    factor = longest / Math.max(...lengths);
    lengths = lengths.map((length) => length * factor);
  }
  return lengths.map((length) => Math.max(2, Math.trunc(length + 0.5)));
}

function roundHalfToEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

// For each of `to` pixels the first of `from` pixels that it is made of, and their weights.
function filter(from, to) {
  const scale = from / to, support = Math.max(scale, 1);
  const starts = new Int32Array(to), weights = [];
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    const row = [];
    let sum = 0;
    for (let j = start; j < end; j++) {
      const weight = Math.max(1 - Math.abs((j - centre + 0.5) * (1 / support)), 0);
      row.push(weight);
      sum += weight;
    }
    starts[i] = start;
    weights.push(Int32Array.from(row, (weight) => Math.trunc((weight * (sum ? 1 / sum : 1)) * (1 << PRECISION) + 0.5)));
  }
  return { starts, weights };
}

// Rows of RGBA pixels to rows of `width` BGR pixels, written to `out` from its index `at` on.
function resizeRows(rgba, from, width, kernel, out, at) {
  const rows = rgba.length / 4 / from;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++, at += 3) {
      const weights = kernel.weights[x];
      let red = 1 << (PRECISION - 1), green = red, blue = red;
      for (let k = 0, i = 4 * (y * from + kernel.starts[x]); k < weights.length; k++, i += 4) {
        const weight = weights[k];
        red += rgba[i] * weight;
        green += rgba[i + 1] * weight;
        blue += rgba[i + 2] * weight;
      }
      out[at] = blue >> PRECISION;
      out[at + 1] = green >> PRECISION;
      out[at + 2] = red >> PRECISION;
    }
  }
}

// Columns of pixels to columns of `height` pixels; `line` bytes a row.
function resizeColumns(pixels, line, height, kernel) {
  const out = new Uint8ClampedArray(height * line), sums = new Int32Array(line);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (PRECISION - 1));
    kernel.weights[y].forEach((weight, k) => {
      const from = (kernel.starts[y] + k) * line;
      for (let i = 0; i < line; i++) sums[i] += pixels[from + i] * weight;
    });
    for (let i = 0, at = y * line; i < line; i++) out[at + i] = sums[i] >> PRECISION;
  }
  return out;
}

// Resize an ImageBitmap. It is read in stripes, since a canvas can't hold every picture.
function resizeBitmap(bitmap, width, height) {
  const rows = Math.max(1, Math.min(bitmap.height, Math.floor(STRIPE / bitmap.width)));
  const context = new OffscreenCanvas(bitmap.width, rows).getContext('2d', { willReadFrequently: true });
  context.globalCompositeOperation = 'copy';
  const kernel = filter(bitmap.width, width);
  const narrow = new Uint8ClampedArray(bitmap.height * width * 3);
  for (let top = 0; top < bitmap.height; top += rows) {
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, bitmap.width, Math.min(rows, bitmap.height - top));
    resizeRows(data, bitmap.width, width, kernel, narrow, top * width * 3);
  }
  if (bitmap.height === height) return { pixels: narrow, width, height };
  return { pixels: resizeColumns(narrow, width * 3, height, filter(bitmap.height, height)), width, height };
}

// Resize as the model's metadata say. Returns bytes in BGR, and their width and height.
export function resize(bitmap, { scale, resize: rule }) {
  if (!scale.length) return resizeBitmap(bitmap, bitmap.width, bitmap.height);
  return resizeBitmap(bitmap, ...resizedSize(bitmap.width, bitmap.height, scale, rule.split(' ')[1] ?? 'nearest'));
}
