"""MMDetection's augmentations in a training with masks: each moves boxes and masks alike, or is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from centermask.utils.errors import InputError

# What moves boxes but not masks, and what to do instead.
BOXES_ONLY = {
    'MixUp': 'use CachedMixUp with flip_ratio=1.0 and poly2mask=False, which moves both',
    'Mosaic': 'use CachedMosaic, which moves both',
    'RandomAffine': 'leave it out',
    'RandomCenterCropPad': 'use RandomCrop with recompute_bbox=True',
    'RandomShift': 'leave it out',
}
BITMAPS_ONLY = ('Albu', 'CopyPaste', 'Expand', 'RandomErasing')
# What cuts masks but leaves the boxes of whole objects, clipped.
CUTTING = ('MinIoURandomCrop', 'RandomCrop', 'RandomErasing')
# What leaves semantic labels where they were. LegacyFlip moves masks by a column more than them.
NO_LABELS = ('Albu', 'CachedMixUp', 'CachedMosaic', 'CopyPaste', 'LegacyFlip')
# What clips or flips boxes, or takes them from masks, as boxes that end behind their last pixel.
BEFORE_LEGACY_BOXES = (
    'Albu',
    'CachedMixUp',
    'CachedMosaic',
    'CopyPaste',
    'MaskBoxes',
    'MinIoURandomCrop',
    'RandomCrop',
    'RandomFlip',
)


def check_augmentation(dataset: dict, source: str | None) -> None:
    """Check the augmentations of a training.

    Args:
        dataset: config of the training's data, within any wrappers.
        source: the config's file, for the sentence.

    Raises:
        InputError: masks would not be those of the boxes. The sentence names the step and what to do.
    """
    for steps in _pipelines(dataset):
        if fault := _fault(steps):
            raise InputError(f'The training pipeline of {source or "the config"} does not fit masks: {fault}.')


def check_semantic_data(dataset: dict, source: str | None) -> None:
    """Check that a training of a panoptic model loads semantic PNGs.

    Args:
        dataset: config of the training's data, within any wrappers.
        source: the config's file, for the sentence.

    Raises:
        InputError: a data set has none, or a pipeline doesn't load them.
    """
    loaded = all(any(step.get('with_seg') for step in steps) for steps in _pipelines(dataset))
    if not loaded or not all((each.get('data_prefix') or {}).get('seg') for each in _innermost(dataset)):
        raise InputError(
            f'The training data of {source or "the config"} have no semantic PNGs, which a panoptic model learns: set '
            'data_prefix.seg of train_dataloader.dataset, of the type CenterMaskPanopticDataset, and with_seg=True of '
            'LoadAnnotations.'
        )


def _pipelines(dataset: dict) -> list[list[dict]]:
    """Return the steps that images pass, for each of the innermost data sets."""
    own = list(_flatten(dataset.get('pipeline') or []))
    return [[*steps, *own] for each in _wrapped(dataset) for steps in _pipelines(each)] or [own]


def _innermost(dataset: dict) -> list[dict]:
    """Return the configs of the data sets themselves within wrappers."""
    return [inner for each in _wrapped(dataset) for inner in _innermost(each)] or [dataset]


def _wrapped(dataset: dict) -> list[dict]:
    return [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])


def _flatten(steps: list) -> Iterator[dict]:
    """Yield steps and those within others (RandomApply, RandomChoice), but not Albumentations' own."""
    for step in steps:
        if isinstance(step, list | tuple):
            yield from _flatten(list(step))
        elif isinstance(step, dict) and 'type' in step:
            yield step
            if _name(step) != 'Albu':
                yield from _flatten(step.get('transforms') or [])


def _name(step: dict) -> str:
    return getattr(step['type'], '__name__', str(step['type'])).rpartition('.')[2]


def _fault(steps: list[dict]) -> str:
    """Return what is wrong with the first step that doesn't fit, '' if all do or no masks are loaded."""
    loading = next((step for step in steps if _name(step) == 'LoadAnnotations' and step.get('with_mask')), None)
    if loading is None:
        return ''
    bitmaps = loading.get('poly2mask', True)  # MMDetection's default
    names = [_name(step) for step in steps]
    for i, (name, step) in enumerate(zip(names, steps, strict=True)):
        if name in BOXES_ONLY:
            return f'{name} moves boxes but not masks; {BOXES_ONLY[name]}'
        if name in NO_LABELS and loading.get('with_seg'):
            return f'{name} does not move semantic labels as it moves masks; leave it out'
        if name == 'Albu' and (fault := _fault_of_albu(step)):
            return fault
        if name in BITMAPS_ONLY and not bitmaps:
            return f'{name} takes masks as bitmaps only; set poly2mask=True in LoadAnnotations'
        if name == 'CachedMixUp' and bitmaps:
            return 'CachedMixUp cuts bitmaps off; set poly2mask=False in LoadAnnotations'
        if name == 'CachedMixUp' and step.get('flip_ratio', 0.5) < 1:
            return 'CachedMixUp flips masks about another axis than boxes; set flip_ratio=1.0, with which it flips none'
        if name == 'CachedMosaic' and len(set(step.get('img_scale', ()))) > 1:
            return 'CachedMosaic swaps the sides of masks; give two equal sides as img_scale'
        if name == 'CopyPaste' and not _one_size(steps[:i]):
            return "CopyPaste takes images of one size; put dict(type='Pad', size=(W, H)) between it and the resize"
        if name in CUTTING and not step.get('recompute_bbox') and 'MaskBoxes' not in names[i:]:
            how = 'set recompute_bbox=True, or ' if name == 'RandomCrop' else ''
            return f"{name} leaves boxes of whole objects where it cuts masks; {how}put dict(type='MaskBoxes') after it"
        if name in BEFORE_LEGACY_BOXES and 'LegacyBoxes' in names[:i]:
            other = ', or use LegacyFlip' if name == 'RandomFlip' else ''
            return f'{name} takes boxes that end behind their last pixel; put it before LegacyBoxes{other}'
    return ''


def _fault_of_albu(step: dict) -> str:
    if find_spec('albumentations') is None:
        return 'Albu needs a package that is not installed; run "pip install albumentations", or leave the step out'
    if not (step.get('bbox_params') or {}).get('filter_lost_elements'):
        return (
            "Albu would keep masks of boxes that it drops; give it bbox_params=dict(type='BboxParams', "
            "format='pascal_voc', label_fields=['gt_bboxes_labels', 'gt_ignore_flags'], filter_lost_elements=True)"
        )
    return ''


def _one_size(steps: list[dict]) -> bool:
    """Return whether images can be of one size after some steps, as far as the config tells."""
    resized = [i for i, step in enumerate(steps) if 'Resize' in _name(step)]
    if not resized:
        return True
    resize, *later = steps[resized[-1] :]
    scale = resize.get('scale')
    square = _name(resize) == 'Resize' and (isinstance(scale, int) or (scale is not None and scale[0] == scale[1]))
    pads = [step for step in later if _name(step) == 'Pad']
    return any(pad.get('size') or (square and pad.get('pad_to_square')) for pad in pads)
