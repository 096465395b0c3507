"""Pre-trained backbones (``init_cfg=dict(type='Pretrained', checkpoint=...)``) that fit, or an error."""

from __future__ import annotations

import logging

from mmdet.registry import WEIGHT_INITIALIZERS
from mmengine import model as mmengine_model
from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from centermask.checkpoints.loading import load_weights, read_checkpoint, shortened, with_statistics
from centermask.utils.errors import InputError


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class PretrainedInit(mmengine_model.PretrainedInit):
    """MMEngine's initialiser, which only warns where nothing of the file fits.

    It is registered in MMDetection's scope under the same name, because ``BaseModule.init_weights`` runs what has that
    name last, after all others.

    Args:
        checkpoint: file, URL or short form (``open-mmlab://...``).
        prefix: load only weights whose names begin with it, without it; by default ``backbone`` where nothing fits
            as it is.
        map_location: as for ``torch.load``.

    Raises:
        InputError: when called, if the file can't be had or nothing of it fits.
    """

    def __call__(self, module: nn.Module) -> None:
        remedy = 'name a local file by --cfg-options model.backbone.init_cfg.checkpoint=FILE.'
        weights = read_checkpoint(self.checkpoint, self.map_location, remedy)['state_dict']
        prefix = self.prefix
        if prefix is None and not weights.keys() & module.state_dict().keys():
            prefix = 'backbone'  # of a whole detector's file
        if prefix is not None:
            prefix = prefix.rstrip('.') + '.'
            weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        weights = with_statistics(module, weights)
        misfits = load_weights(module, weights)
        absent = [misfit.key for misfit in misfits if misfit.in_model is not None]
        unused = [misfit.key for misfit in misfits if misfit.in_model is None]
        loaded = len(weights) - len([misfit for misfit in misfits if misfit.in_file is not None])
        name = type(module).__name__
        if loaded == 0:
            raise InputError(f"Nothing of {self.checkpoint} fits the config's {name} (first, {misfits[0]}): {remedy}")
        print_log(
            f'{name} starts from {self.checkpoint}: {loaded} tensors loaded{shortened(", not used: ", unused)}',
            'current',
        )
        if absent:
            print_log(
                f'{len(absent)} tensors of {name} are not in {self.checkpoint} in their shape and start fresh'
                f'{shortened(": ", absent)}',
                'current',
                logging.WARNING,
            )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
