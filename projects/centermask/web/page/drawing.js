// Drawing of a picture with its objects: masks, outlines, boxes and labels.

import { paste } from './masks.js';

const SIDES = [640, 1600]; // least and greatest longer side of the drawing, in pixels
const MOST_LABELLED = 40; // objects; more have no boxes and labels
const COVER = 0.35; // how much of a mask's colour covers the picture

// The colour of a class as red, green and blue: neighbours in the list are far apart.
export function colour(label) {
  const hue = (label * 137.508 + 210) % 360, lightness = [0.5, 0.7, 0.4, 0.6][label % 4];
  const chroma = 0.9 * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((offset) => {
    const k = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

export function drawingSize(width, height) {
  const longer = Math.max(width, height);
  const factor = Math.min(Math.max(longer, SIDES[0]), SIDES[1]) / longer;
  return [width, height].map((side) => Math.max(1, Math.round(side * factor)));
}

// Draw objects on pixels (ImageData) of the picture that has their boxes' coordinates.
export function draw(canvas, pixels, picture, detections, metadata, selected) {
  const context = canvas.getContext('2d');
  const factors = [pixels.width / picture.width, pixels.height / picture.height];
  const drawn = new ImageData(new Uint8ClampedArray(pixels.data), pixels.width);
  const objects = detections.map((detection) => ({
    ...detection,
    box: detection.box.map((value, k) => value * factors[k % 2]),
    colour: colour(metadata.classes.length > 1 ? detection.label : detection.number),
  }));
  for (const object of [...objects].reverse()) { // the best above the others
    paint(drawn, paste(object, drawn.width, drawn.height, metadata), object.colour);
  }
  context.putImageData(drawn, 0, 0);
  const labelled = objects.length > MOST_LABELLED ? [] : objects;
  const chosen = objects.find(({ number }) => number === selected);
  const unit = canvas.width / (canvas.clientWidth || canvas.width); // a pixel of the page
  const taken = [];
  for (const object of labelled) frame(context, object, 2 * unit);
  if (chosen) frame(context, chosen, 4 * unit);
  for (const object of chosen ? [chosen, ...labelled.filter((other) => other !== chosen)] : labelled) {
    label(context, object, metadata, 13 * unit, taken, object === chosen);
  }
}

function paint(image, { left, top, width, height, bits }, rgb) {
  const large = Math.min(width, height) > 40; // whose outlines are two pixels wide
  const at = (x, y) => x >= 0 && x < width && y >= 0 && y < height && bits[y * width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!bits[y * width + x]) continue;
      let inside = at(x - 1, y) && at(x + 1, y) && at(x, y - 1) && at(x, y + 1);
      if (inside && large) inside = at(x - 2, y) && at(x + 2, y) && at(x, y - 2) && at(x, y + 2);
      const cover = inside ? COVER : 1, i = 4 * ((top + y) * image.width + left + x);
      for (let k = 0; k < 3; k++) image.data[i + k] += cover * (rgb[k] - image.data[i + k]);
    }
  }
}

function frame(context, { box, colour: rgb }, width) {
  context.lineWidth = width;
  context.strokeStyle = `rgb(${rgb})`;
  context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
}

// Write class and score at the box where no other label is; the selected object's in any case.
function label(context, { box, colour: rgb, label: index, score }, metadata, size, taken, always) {
  const { width, height } = context.canvas;
  context.font = `${size}px system-ui, sans-serif`;
  const text = `${metadata.classes[index]} ${score.toFixed(2)}`;
  const wide = context.measureText(text).width + size / 2, high = size * 1.4;
  const x = Math.max(0, Math.min(box[0], width - wide));
  for (const y of [box[1] - high, box[1], box[3] - high].filter((place) => place >= 0 && place + high <= height)) {
    const overlaps = taken.some(([a, b, w, h]) => x < a + w && a < x + wide && y < b + h && b < y + high);
    if (overlaps && !always) continue;
    taken.push([x, y, wide, high]);
    context.fillStyle = `rgb(${rgb})`;
    context.fillRect(x, y, wide, high);
    context.fillStyle = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 ? '#000' : '#fff';
    context.textBaseline = 'middle';
    context.fillText(text, x + size / 4, y + high / 2);
    return;
  }
}
