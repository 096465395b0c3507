"""Drawing of test images into folders as theirs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from centermask.engine.image_prediction import drawing_name


@HOOKS.register_module()
class FolderVisualizationHook(DetVisualizationHook):
    """MMDetection's hook that keeps images of one name in several folders apart.

    Drawings lie in ``test_out_dir`` as images do in the folder that holds all of the test data.

    Args:
        *args, **kwargs: as :class:`mmdet.engine.hooks.DetVisualizationHook` takes them.
    """

    _root = ''

    def before_test(self, runner: Runner) -> None:
        """Find the folder that holds all images."""
        dataset = runner.test_dataloader.dataset
        if self.draw:
            folders = {os.path.dirname(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))}
            self._root = os.path.commonpath(folders)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw the images of a batch."""
        for sample in outputs if self.draw else ():
            self._test_index += 1
            name = drawing_name(Path(sample.img_path), Path(self._root))
            self._visualizer.add_datasample(
                name.name if self.show else 'test_img',
                mmcv.imread(sample.img_path, channel_order='rgb', backend='cv2', backend_args=self.backend_args),
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                pred_score_thr=self.score_thr,
                out_file=str(Path(runner.work_dir, runner.timestamp, self.test_out_dir, name))
                if self.test_out_dir
                else None,
                step=self._test_index,
            )
