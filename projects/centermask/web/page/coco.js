// Detections in COCO's format: images, categories, and annotations with scores and run-length encoded masks.

import { encode, paste } from './masks.js';

export function toCoco({ name, width, height }, detections, metadata) {
  const annotations = detections.map((detection, i) => {
    const [left, top, right, bottom] = detection.box;
    const { area, rle } = encode(paste(detection, width, height, metadata), width, height);
    return {
      id: i + 1,
      image_id: 1,
      file_name: name,
      category_id: metadata.category_ids[detection.label],
      category_name: metadata.classes[detection.label],
      bbox: [left, top, right - left, bottom - top],
      score: detection.score,
      mask_score: detection.maskScore,
      segmentation: rle,
      area,
      iscrowd: 0,
    };
  });
  return {
    images: [{ id: 1, file_name: name, width, height }],
    categories: metadata.classes.map((name, i) => ({ id: metadata.category_ids[i], name })),
    annotations,
  };
}
