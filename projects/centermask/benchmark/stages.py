"""Where an image's time goes: into the network's parts, the selection of boxes, the pasting of masks."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import mmdet.structures.mask
from torch import nn

from centermask import mask_pasting

NETWORK = ('backbone', 'neck', 'box head', 'mask branch')
STAGES = ('pre-processing', *NETWORK, 'selection and NMS', 'pasting', 'encoding', 'rest')


class Stopwatch:
    """Adds time up by stage. A stage within another stops the outer one.

    Args:
        now: seconds, after all that was started has ended (on a GPU: after waiting for it).
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
        self._add()
        self._running.append(stage)

    def stop(self) -> None:
        self._add()
        self._running.pop()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Time the block; what no stage covers is the rest."""
        self._since = self.now()
        yield
        self._add()


def stages_of(model: Any) -> tuple[dict[nn.Module, str], list[tuple[Any, str, str]]]:
    """Return the stage of each of a detector's parts, and of methods and functions (owner, name, stage) in them."""
    parts = {model.data_preprocessor: 'pre-processing', model.backbone: 'backbone'}
    functions: list[tuple[Any, str, str]] = [
        (mmdet.structures.mask, 'encode_mask_results', 'encoding'),
        # A CenterMask encodes stripes of a mask as they are pasted.
        (mask_pasting, '_changes', 'encoding'),
        (mask_pasting, '_rle', 'encoding'),
    ]

    def add(owner: Any, name: str, stage: str) -> None:
        part = getattr(owner, name, None)
        if isinstance(part, nn.Module):
            parts[part] = stage
            if name in ('rpn_head', 'bbox_head', 'mask_head') and hasattr(part, 'predict_by_feat'):
                after = 'pasting' if name == 'mask_head' else 'selection and NMS'
                functions.append((type(part), 'predict_by_feat', after))

    for name, stage in (
        ('neck', 'neck'),
        ('rpn_head', 'box head'),
        ('bbox_head', 'box head'),
        ('mask_head', 'mask branch'),
    ):
        add(model, name, stage)
    head = getattr(model, 'roi_head', None)
    if head is not None:
        for name, stage in (
            ('bbox_roi_extractor', 'box head'),
            ('bbox_head', 'box head'),
            ('mask_roi_extractor', 'mask branch'),
            ('mask_head', 'mask branch'),
            ('mask_iou_head', 'mask branch'),
        ):
            add(head, name, stage)
        for name, stage in (('forward', 'mask branch'), ('postprocess', 'pasting')):  # CenterMask's
            if hasattr(type(head), name):
                functions.append((type(head), name, stage))
    return parts, functions


@contextmanager
def timed_by_stage(model: Any, watch: Stopwatch) -> Iterator[None]:
    """Let a detector's parts report to the stopwatch while the block runs.

    Parts are known by themselves or by their class, since a detector may test with a copy of its parts.
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
