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
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    picture = Image.open(source).convert('RGB')
    small = resized(picture, min(about['scale']), max(about['scale']))

    height, width, _ = (pixels := np.asarray(small)[:, :, ::-1]).shape  # blue first
    images = pixels[None]
    if not about['preprocess']:
        pixels = ((pixels - about['mean']) / about['std']).transpose(2, 0, 1).astype(np.float32)
        images = np.pad(pixels, ((0, 0), (0, -height % 32), (0, -width % 32)))[None]
    images, sizes = np.ascontiguousarray(images), np.array([[height, width]])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {'images': images, 'sizes': sizes}), strict=True))

    boxes = found['boxes'].reshape(-1, 4) * np.tile(np.divide(picture.size, small.size), 2)
    pixels, draw = np.array(picture, float), []
    for i in np.flatnonzero((found['labels'].ravel() >= 0) & (found['scores'].ravel() >= float(least_score))):
        mask = paste(found['masks'].reshape(-1, 28, 28)[i], boxes[i], *picture.size) >= about['mask_threshold']
        pixels[mask] = pixels[mask] / 2 + np.random.default_rng(i).integers(0, 128, 3)
        name = about['classes'][found['labels'].ravel()[i]]
        draw.append((boxes[i], f'{name} {found["scores"].ravel()[i]:.2f}'))
    canvas = ImageDraw.Draw(picture := Image.fromarray(pixels.astype(np.uint8)))
    for box, text in draw:
        canvas.rectangle(list(box), outline='yellow')
        canvas.text((box[0] + 2, box[1]), text, fill='yellow')
        print(text, *box.round(1))
    picture.save(out)


if __name__ == '__main__':
    main(*sys.argv[1:])
