"""Pre-trained backbones (``init_cfg=dict(type='StrictPretrained', checkpoint=...)``) that fit, or an error."""

from __future__ import annotations

import logging
from typing import Any

from mmdet.registry import WEIGHT_INITIALIZERS
from mmengine.logging import print_log
from mmengine.model import PretrainedInit, update_init_info
from torch import nn

from centermask.checkpoints.loading import add_bn_statistics, load_weights, read_checkpoint, shortened
from centermask.utils.errors import InputError


@WEIGHT_INITIALIZERS.register_module()
class StrictPretrained(PretrainedInit):
    """MMEngine's ``Pretrained`` for released layouts too, with an error where nothing of the file fits.

    MMEngine's own only warns then.

    Args:
        checkpoint: file, URL or short form (``open-mmlab://...``).
        prefix: load only weights whose names begin with it, without it; ``backbone`` by default where nothing fits
            as it is.
        map_location: as for ``torch.load``.

    Raises:
        InputError: when called, if the file can't be read or nothing of it fits.
    """

    def __call__(self, module: nn.Module) -> None:
        _initialise_parts(module)
        remedy = 'name a local file by --cfg-options model.backbone.init_cfg.checkpoint=FILE.'
        weights = read_checkpoint(self.checkpoint, self.map_location, remedy)['state_dict']
        prefix = self.prefix
        if prefix is None and not weights.keys() & module.state_dict().keys():
            prefix = 'backbone'  # of a complete detector's file
        if prefix is not None:
            prefix = prefix.rstrip('.') + '.'
            weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        weights = add_bn_statistics(module, weights)
        mismatches = load_weights(module, weights)
        absent = [mismatch.key for mismatch in mismatches if mismatch.in_model is not None]
        unused = [mismatch.key for mismatch in mismatches if mismatch.in_model is None]
        loaded = len(weights) - len([mismatch for mismatch in mismatches if mismatch.in_file is not None])
        name = type(module).__name__
        if loaded == 0:
            raise InputError(
                f"Nothing of {self.checkpoint} fits the config's {name} (first, {mismatches[0]}): {remedy}"
            )
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


def _initialise_parts(module: nn.Module) -> None:
    """Initialise the module's parts now, which ``BaseModule.init_weights`` would do after any type but 'Pretrained'."""
    part: Any
    for part in module.children():
        if hasattr(part, 'init_weights') and not getattr(part, 'is_init', False):
            part.init_weights()
            part.is_init = True  # MMCV's ConvModule doesn't note it
