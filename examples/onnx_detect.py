"""Objects in a picture by an exported file, with ONNX Runtime, NumPy and Pillow alone.

python examples/onnx_detect.py MODEL.onnx PICTURE OUT.png [LEAST_SCORE]     (MODEL as tools/export.py writes it)
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw


def resized(picture, shorter, longer):
    """The picture with its shorter side as long as wanted, or shorter where the longer would be too long."""
    factor = min(shorter / min(picture.size), longer / max(picture.size))
    return picture.resize([int(side * factor + 0.5) for side in picture.size], Image.Resampling.BILINEAR)


def paste(cells, box, width, height):
    """A mask's 28×28 probabilities in the picture's pixels, bilinear along both axes."""
    weights = []
    for low, high, pixels in ((box[1], box[3], height), (box[0], box[2], width)):
        places = (np.arange(pixels) + 0.5 - low) / (high - low) * 28 - 0.5
        weights.append(np.maximum(1 - np.abs(places[:, None] - np.arange(28)), 0))
    return weights[0] @ cells @ weights[1].T


def main(model, source, out, least_score='0.3'):
    session = onnxruntime.InferenceSession(model)
    written = session.get_modelmeta().custom_metadata_map
    if written.get('full_masks') != 'false':
        sys.exit(f'{model} has full masks, or no metadata: export it by tools/export.py without --full-masks.')
    about = {key: json.loads(value) for key, value in written.items()}
    picture = Image.open(source).convert('RGB')
    small = resized(picture, min(about['scale']), max(about['scale']))
    height, width, _ = (pixels := np.asarray(small)[:, :, ::-1]).shape  # blue first
    images = pixels[None]
    if not about['preprocess']:
        pixels = ((pixels - about['mean']) / about['std']).transpose(2, 0, 1).astype(np.float32)
        images = np.pad(pixels, ((0, 0), (0, -height % about['divisor']), (0, -width % about['divisor'])))[None]
    inputs = {'images': np.ascontiguousarray(images), 'sizes': np.array([[height, width]])}
    boxes, labels, scores, masks = session.run(['boxes', 'labels', 'scores', 'masks'], inputs)
    labels, scores, masks = labels.ravel(), scores.ravel(), masks.reshape(-1, 28, 28)
    boxes = boxes.reshape(-1, 4) * np.tile(np.divide(picture.size, small.size), 2)
    pixels, draw = np.array(picture, float), []
    for i in np.flatnonzero((labels >= 0) & (scores >= float(least_score))):  # a fixed number's missing ones have −1
        mask = paste(masks[i], boxes[i], *picture.size) >= about['mask_threshold']
        pixels[mask] = pixels[mask] / 2 + np.random.default_rng(i).integers(0, 128, 3)
        draw.append((boxes[i], f'{about["classes"][labels[i]]} {scores[i]:.2f}'))
    canvas = ImageDraw.Draw(picture := Image.fromarray(pixels.astype(np.uint8)))
    for box, text in draw:
        canvas.rectangle(list(box), outline='yellow')
        canvas.text((box[0] + 2, box[1]), text, fill='yellow')
        print(text, *box.round(1))
    picture.save(out)


if __name__ == '__main__':
    main(*sys.argv[1:]) if len(sys.argv) in (4, 5) else sys.exit(__doc__)
