"""Time of an image by stage: the network's parts, the selection of boxes, the pasting of masks."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import mmdet.structures.mask
import torch
from torch import nn

from centermask import mask_pasting
from centermask.benchmark.models import TimedModel

NETWORK = ('backbone', 'neck', 'box head', 'mask branch', 'semantic head')
STAGES = ('pre-processing', *NETWORK, 'selection and NMS', 'pasting', 'encoding', 'fusion', 'rest')

# The stages of a detector's parts and, below, of its RoI head's.
PARTS = dict(
    data_preprocessor='pre-processing',
    backbone='backbone',
    neck='neck',
    rpn_head='box head',
    bbox_head='box head',
    mask_head='mask branch',
    semantic_head='semantic head',
    panoptic_fusion='fusion',
)
ROI_PARTS = dict(
    bbox_roi_extractor='box head',
    bbox_head='box head',
    mask_roi_extractor='mask branch',
    mask_head='mask branch',
    mask_iou_head='mask branch',
)
# Methods of heads that are stages of their own. In RTMDet-Ins the rest of `predict_by_feat` resizes masks, too.
METHODS = dict(
    rpn_head=dict(predict_by_feat='selection and NMS'),
    bbox_head=dict(predict_by_feat='selection and NMS', _mask_predict_by_feat_single='mask branch'),
    mask_head=dict(predict_by_feat='pasting', probabilities='mask branch'),
    roi_head=dict(forward='mask branch', postprocess='pasting'),
    semantic_head=dict(forward='semantic head', predict='fusion'),
    panoptic_fusion=dict(predict='fusion'),
)
FUNCTIONS = (
    (mmdet.structures.mask, 'encode_mask_results', 'encoding'),
    # A CenterMask encodes stripes of a mask as they are pasted.
    (mask_pasting, '_changes', 'encoding'),
    (mask_pasting, '_rle', 'encoding'),
)


class Stopwatch:
    """Adds up time by stage. A stage within another stops the outer one.

    Args:
        now: returns seconds, once all started work is done (on a GPU: after synchronising), or any other count.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._running = ['rest']
        self._since = 0.0

    def _add(self) -> None:
        now = self.now()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def start(self, stage: str) -> None:
        """Start a stage."""
        self._add()
        self._running.append(stage)

    def stop(self) -> None:
        """Stop the stage that was started last, and continue the one around it."""
        self._add()
        self._running.pop()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Time the block; what no stage covers is the rest."""
        self._since = self.now()
        yield
        self._add()


def stages_of(model: Any) -> tuple[dict[nn.Module, str], list[tuple[Any, str, str]]]:
    """Return the stage of each of a detector's parts, and of methods and functions as (owner, name, stage)."""
    parts: dict[nn.Module, str] = {}
    functions: list[tuple[Any, str, str]] = list(FUNCTIONS)
    roi_head = getattr(model, 'roi_head', None)
    for owner, stages in ((model, PARTS | dict(roi_head=None)), (roi_head, ROI_PARTS)):
        for name, stage in stages.items():
            part = getattr(owner, name, None)
            if not isinstance(part, nn.Module):
                continue
            if stage:
                parts[part] = stage
            for method, of_method in METHODS.get(name, {}).items():
                if hasattr(part, method):
                    functions.append((type(part), method, of_method))
    return parts, list(dict.fromkeys(functions))


@contextmanager
def timed_by_stage(model: Any, watch: Stopwatch) -> Iterator[None]:
    """Let a detector's parts report to the stopwatch while the block runs.

    Parts are recognised by identity or class, since a detector may predict with a copy of its parts.
    """
    parts, functions = stages_of(model)
    by_class = {type(part): stage for part, stage in parts.items()}

    def stage_of(module: nn.Module) -> str | None:
        return parts.get(module) or by_class.get(type(module))

    def before(module: nn.Module, inputs: Any) -> None:
        if stage := stage_of(module):
            watch.start(stage)

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if stage_of(module):
            watch.stop()

    with ExitStack() as stack:
        for owner, name, stage in functions:
            stack.enter_context(patch.object(owner, name, _timed(getattr(owner, name), stage, watch)))
        for hook in (
            nn.modules.module.register_module_forward_pre_hook(before),
            nn.modules.module.register_module_forward_hook(after),
        ):
            stack.callback(hook.remove)
        yield


def _timed(function: Callable, stage: str, watch: Stopwatch) -> Callable:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        watch.start(stage)
        try:
            return function(*args, **kwargs)
        finally:
            watch.stop()

    return timed


def seconds_by_stage(timed: TimedModel, number: int) -> dict[str, float]:
    """Return the seconds of a round's image by stage."""

    def on_gpu() -> float:
        torch.cuda.synchronize(timed.device)
        return time.perf_counter()

    watch = Stopwatch(on_gpu if timed.device.startswith('cuda') else time.perf_counter)
    with timed.memory(), timed_by_stage(timed.model, watch), watch.whole():
        timed.run(number)
    return watch.seconds
