"""Test-time augmentation: boxes of all views merged by NMS, then masks and their IoU averaged over the views."""

from __future__ import annotations

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import nms_of_image, scale_factors
from .detector import CenterMask


def _flip_boxes(boxes: Tensor, meta: dict) -> Tensor:
    """Map boxes (N, 4) between a view and its image or back; ``flip_offset`` is 1 where x goes to W − x − 1."""
    if not meta.get('flip'):
        return boxes
    if meta['flip_direction'] != 'horizontal':
        raise ValueError(f'test-time augmentation flips horizontally, not {meta["flip_direction"]}ly')
    width = meta['img_shape'][1] - meta.get('flip_offset', 0)
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


@MODELS.register_module()
class CenterMaskTTA(DetTTAModel):
    """A CenterMask that predicts from several views of each image: flipped, and in several sizes.

    Args:
        module: the detector, or its config. Its ``test_cfg`` decides how the boxes of all views are merged.
    """

    def test_step(self, data: dict) -> SampleList:
        """Return one sample an image, with ``pred_instances`` in pixels of the original image.

        Args:
            data: ``inputs`` and ``data_samples``, a list of views each; a view is the list of a batch's images.
        """
        with self.module.fast_inference() as module:
            return self._predict(module, data)

    def _predict(self, module: CenterMask, data: dict) -> SampleList:
        head, cfg, views = module.bbox_head, None, []
        if (module.test_cfg['nms'] or {}).get('type') == 'soft_nms':  # twice, it would lower scores twice
            cfg = dict(module.test_cfg, nms=None, max_per_img=None)
        for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True):
            batch = module.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
            features = module.extract_feat(batch['inputs'])
            metas = [sample.metainfo for sample in batch['data_samples']]
            views.append((features, batch['data_samples'], head.predict_by_feat(*head(features), metas, cfg)))
        samples = views[0][1]
        merged = [
            self._merge([(view_samples[i].metainfo, detections[i]) for _, view_samples, detections in views])
            for i in range(len(samples))
        ]
        sizes = [sample.metainfo['ori_shape'][:2] for sample in samples]
        if module.roi_head is None:
            results = [module.clip_detections(*pair) for pair in zip(merged, sizes, strict=True)]
        else:
            masks = zip(*self._masks(module, views, merged), strict=True)
            results = [
                module.roi_head.postprocess(detections, probabilities, ious, size)
                for detections, (probabilities, ious), size in zip(merged, masks, sizes, strict=True)
            ]
        return [
            DetDataSample(metainfo=sample.metainfo, pred_instances=result)
            for sample, result in zip(samples, results, strict=True)
        ]

    def _merge(self, views: list[tuple[dict, InstanceData]]) -> InstanceData:
        """Merge one image's detections, each view's with its metainfo, in pixels of the original image."""
        boxes = torch.cat([_flip_boxes(view.bboxes, meta) / scale_factors(view.bboxes, meta) for meta, view in views])
        scores, labels = (torch.cat([view[name] for _, view in views]) for name in ('scores', 'labels'))
        cfg = self.module.test_cfg
        kept, scores = nms_of_image(boxes, scores, labels, self.module.bbox_head.num_classes, cfg['nms'])
        kept, scores = kept[: cfg['max_per_img']], scores[: cfg['max_per_img']]
        return InstanceData(bboxes=boxes[kept], scores=scores, labels=labels[kept])

    def _masks(
        self, module: CenterMask, views: list[tuple], merged: list[InstanceData]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return each image's masks (N, 28, 28) and mask IoU (N,) on the merged boxes, averaged over the views."""
        labels = [detections.labels for detections in merged]
        probabilities, ious = [], []
        for features, samples, _ in views:
            metas = [sample.metainfo for sample in samples]
            boxes = [
                _flip_boxes(detections.bboxes * scale_factors(detections.bboxes, meta), meta)
                for detections, meta in zip(merged, metas, strict=True)
            ]
            masks = module.roi_head(features, boxes, labels, metas)
            flipped = torch.cat(
                [
                    image.new_full((len(image),), bool(meta.get('flip')))
                    for image, meta in zip(labels, metas, strict=True)
                ]
            ).bool()
            probability = masks.logits.sigmoid()
            probabilities.append(torch.where(flipped[:, None, None], probability.flip(2), probability))
            ious.append(masks.ious)
        counts = [len(detections) for detections in merged]
        mean_probabilities = torch.stack(probabilities).mean(0).split(counts)
        if ious[0] is None:
            return mean_probabilities, [None] * len(counts)
        return mean_probabilities, torch.stack(ious).mean(0).split(counts)
