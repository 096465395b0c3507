"""Detect objects in an image by an exported file, with ONNX Runtime, NumPy and Pillow alone.

python examples/onnx_detect.py MODEL.onnx IMAGE OUT.png [MIN_SCORE]     (MODEL.onnx is written by tools/export.py)
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps


def read(path):
    """Return an image as training reads it: turned as EXIF says, of 16 bits the upper eight, without alpha."""
    image = Image.open(path)
    if image.mode in ('CMYK', 'F', 'LAB') or (image.mode == 'I' and image.format != 'PPM'):
        sys.exit(f'{path} holds {image.mode}: save it in gray or RGB with 8 or 16 bits a channel.')
    image.info = {key: value for key, value in image.info.items() if 'xmp' not in key}  # its orientation is another
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I'):  # gray of 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert('RGB')


def resize(image, shorter, longer):
    """Return the image with its shorter side of that length, or less where the longer side would be too long."""
    factor = min(shorter / min(image.size), longer / max(image.size))
    return image.resize([int(side * factor + 0.5) for side in image.size], Image.Resampling.BILINEAR)


def paste(cells, box, width, height):
    """Return the 28×28 probabilities in a box as probabilities (height, width), interpolated along both axes."""
    weights = []
    for low, high, pixels in ((box[1], box[3], height), (box[0], box[2], width)):
        positions = (np.arange(pixels) + 0.5 - low) / (high - low) * 28 - 0.5
        weights.append(np.maximum(1 - np.abs(positions[:, None] - np.arange(28)), 0))
    return weights[0] @ cells @ weights[1].T


def main(model, source, out, min_score='0.3'):
    session = onnxruntime.InferenceSession(model)
    strings = session.get_modelmeta().custom_metadata_map
    if strings.get('full_masks') != 'false':
        sys.exit(f'{model} has full masks, or no metadata: export it by tools/export.py without --full-masks.')
    metadata = {key: json.loads(value) for key, value in strings.items()}
    image = read(source)
    small = image
    for scale in np.reshape(metadata['scale'], (-1, 2)):  # a test pipeline may resize several times, or never
        small = resize(small, min(scale), max(scale))
    height, width, _ = (pixels := np.asarray(small)[:, :, ::-1]).shape  # BGR
    images = pixels[None]
    if not metadata['preprocess']:
        pixels = ((pixels - metadata['mean']) / metadata['std']).transpose(2, 0, 1).astype(np.float32)
        images = np.pad(pixels, [(0, 0), *((0, -side % metadata['divisor']) for side in (height, width))])[None]
    inputs = {'images': np.ascontiguousarray(images), 'sizes': np.array([[height, width]])}
    boxes, labels, scores, masks = session.run(['boxes', 'labels', 'scores', 'masks'], inputs)
    labels, scores, masks = labels.ravel(), scores.ravel(), masks.reshape(-1, 28, 28)
    boxes = boxes.reshape(-1, 4) * np.tile(np.divide(image.size, small.size), 2)
    pixels, shown = np.array(image, float), np.flatnonzero((labels >= 0) & (scores >= float(min_score)))
    for i in shown:
        mask = paste(masks[i], boxes[i], *image.size) >= metadata['mask_threshold']
        pixels[mask] = pixels[mask] / 2 + np.random.default_rng(i).integers(0, 128, 3)
    canvas = ImageDraw.Draw(result := Image.fromarray(pixels.astype(np.uint8)))
    for i in shown:
        text = f'{metadata["classes"][labels[i]]} {scores[i]:.2f}'
        canvas.rectangle(list(boxes[i]), outline='yellow')
        canvas.text((boxes[i][0] + 2, boxes[i][1]), text, fill='yellow')
        print(text, *boxes[i].round(1))
    result.save(out)


if __name__ == '__main__':
    main(*sys.argv[1:]) if len(sys.argv) in (4, 5) else sys.exit(__doc__)
