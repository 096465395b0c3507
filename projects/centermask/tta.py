"""Test-time augmentation: boxes of all views merged by NMS, then masks and their IoU averaged over the views."""

from __future__ import annotations

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from .detector import CenterMask
from .fcos_head import nms_by_class
from .roi_head import scale_of


def _flip_boxes(boxes: Tensor, meta: dict) -> Tensor:
    """Map boxes (N, 4) between a view and its image or back; ``flip_offset`` is 1 where x goes to W − x − 1."""
    if not meta['flip']:
        return boxes
    if meta['flip_direction'] != 'horizontal':
        raise ValueError(f'test-time augmentation flips horizontally, not {meta["flip_direction"]}ly')
    width = meta['img_shape'][1] - meta.get('flip_offset', 0)
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


@MODELS.register_module()
class CenterMaskTTA(DetTTAModel):
    """A CenterMask that looks at several views of each image: flipped, and in several sizes.

    Args:
        module: the detector, or its config. Its ``test_cfg`` says how the boxes of all views are merged.
    """

    def test_step(self, data: dict) -> SampleList:
        """Return one sample an image, with ``pred_instances`` in pixels of the original image.

        Args:
            data: ``inputs`` and ``data_samples``, a list of views each, a view being the list of a batch's images.
        """
        with self.module.fast_inference() as module:
            return self._predict(module, data)

    def _predict(self, module: CenterMask, data: dict) -> SampleList:
        views = []
        for inputs, samples in zip(data['inputs'], data['data_samples'], strict=True):
            batch = module.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
            features = module.extract_feat(batch['inputs'])
            views.append((features, batch['data_samples'], module.bbox_head.predict(features, samples)))
        merged = [
            self._merge([(samples[i].metainfo, found[i]) for _, samples, found in views])
            for i in range(len(views[0][1]))
        ]
        sizes = [sample.metainfo['ori_shape'][:2] for sample in views[0][1]]
        if module.roi_head is None:
            found = [module.finish_boxes(*pair) for pair in zip(merged, sizes, strict=True)]
        else:
            probabilities, ious = self._masks(module, views, merged)
            found = [
                module.roi_head.finish(merged[i], probabilities[i], None if ious is None else ious[i], sizes[i])
                for i in range(len(merged))
            ]
        return [
            DetDataSample(metainfo=sample.metainfo, pred_instances=detected)
            for sample, detected in zip(views[0][1], found, strict=True)
        ]

    def _merge(self, found: list[tuple[dict, InstanceData]]) -> InstanceData:
        """Merge one image's detections, each view's with its metainfo, in pixels of the original image."""
        boxes = torch.cat([_flip_boxes(view.bboxes, meta) / scale_of(view.bboxes, meta) for meta, view in found])
        scores, labels = (torch.cat([view[name] for _, view in found]) for name in ('scores', 'labels'))
        cfg = self.module.test_cfg
        kept = nms_by_class(boxes, scores, labels, self.module.bbox_head.num_classes, cfg['nms'])[: cfg['max_per_img']]
        return InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=labels[kept])

    def _masks(
        self, module: CenterMask, views: list[tuple], merged: list[InstanceData]
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Return each image's masks (N, 28, 28) and mask IoU (N,) on the merged boxes, averaged over the views."""
        labels = torch.cat([detected.labels for detected in merged])
        probabilities, ious = [], []
        for features, samples, _ in views:
            metas = [sample.metainfo for sample in samples]
            boxes = [
                _flip_boxes(detected.bboxes * scale_of(detected.bboxes, meta), meta)
                for detected, meta in zip(merged, metas, strict=True)
            ]
            masks = module.roi_head.mask_forward(features, bbox2roi(boxes), labels, metas)
            flipped = torch.cat(
                [labels.new_full((len(b),), meta['flip']) for b, meta in zip(boxes, metas, strict=True)]
            ).bool()
            probability = masks.logits.sigmoid()
            probabilities.append(torch.where(flipped[:, None, None], probability.flip(2), probability))
            ious.append(masks.ious)
        counts = [len(detected) for detected in merged]
        mean = torch.stack(probabilities).mean(0).split(counts)
        return mean, None if ious[0] is None else torch.stack(ious).mean(0).split(counts)
