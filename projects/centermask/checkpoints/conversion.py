"""Convert a released checkpoint to one of MMDetection's and back, with every tensor accounted for."""

from __future__ import annotations

import difflib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from centermask.checkpoints.layouts import RECIPES, Translation, as_there, recipe_of, to_ours, to_released
from centermask.checkpoints.loading import STATISTICS, has_statistics, with_statistics
from centermask.checkpoints.reading import Contents
from centermask.utils.errors import InputError

# Layers with an output a class; of the paper recipe's masks and scores the first output is background's.
BOX_LAYERS = ('bbox_head.conv_cls',)
MASK_LAYERS = ('roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou')


class Conversion(NamedTuple):
    """A converted checkpoint, and what became of the file."""

    checkpoint: dict[str, Any]
    config: Path
    parameters: int
    translation: Translation
    other_entries: list[str]  # of the file, without use here


def convert(contents: Contents, source: str, configs: Path) -> Conversion:
    """Translate a released checkpoint.

    Args:
        contents: what the file holds.
        source: its name.
        configs: folder of the configs, of which the one that describes the file's model is found.

    Returns:
        The checkpoint has ``meta`` (``source``, its layout; ``config``, its name; ``dataset_meta`` with the classes,
        if they are COCO's), ``state_dict``, and under ``released`` what :func:`restore` needs.

    Raises:
        InputError: the file has no known layout, or its tensors aren't those of a model of the configs.
    """
    translation = to_ours(contents.weights)
    if translation is None:
        if is_ours(contents):
            raise InputError(
                f'The checkpoint {source} has the layout of MMDetection already: use it as it is, or give --to for the '
                "way back to a release's."
            )
        raise InputError(
            f'The checkpoint {source} has no layout that is known here: give one of CenterMask or CenterMask2, or an '
            'ImageNet VoVNet, MobileNetV2 or ResNet.'
        )
    config, module = _find_config(translation, configs, source)
    faults = _faults(module, contents.weights, translation)
    if faults:
        raise InputError(
            f"The checkpoint {source} can't be converted, it isn't a whole {config.stem} in the {translation.layout} "
            'layout; nothing was written, give the file as it was released:\n  ' + '\n  '.join(faults)
        )
    meta: dict[str, Any] = dict(source=translation.layout, config=config.stem)
    classes = _count_classes(translation)
    if classes == len(CocoDataset.METAINFO['classes']):
        meta['dataset_meta'] = dict(CocoDataset.METAINFO)
    names = {name: translation.names.get(name) for name in contents.weights if name not in translation.left_out}
    return Conversion(
        dict(
            meta=meta,
            state_dict=with_statistics(module, translation.weights),
            released=dict(layout=translation.layout, names=names, kept=translation.kept),
        ),
        config,
        sum(parameter.numel() for parameter in module.parameters()),
        translation,
        [str(name) for name in contents.others],
    )


def restore(contents: Contents, source: str, recipe: str) -> dict[str, Any]:
    """Translate a checkpoint of ours back.

    A file that :func:`convert` wrote returns to what it was made of, tensor for tensor and in the same order; one that
    was trained here gets the names of the release.

    Args:
        contents: what the file holds.
        source: its name.
        recipe: ``star`` or ``paper``, whose layout is wanted.

    Returns:
        A checkpoint whose only entry is ``model``.

    Raises:
        InputError: the file isn't ours, or holds a model that isn't of this recipe.
    """
    if not is_ours(contents):
        raise InputError(f"The checkpoint {source} isn't in the layout of MMDetection: leave out --to to convert it.")
    weights = contents.weights
    released = _entry(contents.others, 'released')
    if not _is_whole(weights):
        if released.get('layout') not in ('vovnet', 'mobilenetv2', 'detectron2'):
            raise InputError(
                f'The checkpoint {source} holds no whole model: --to converts those, and backbones that were '
                "converted from a VoVNet, a MobileNetV2 or Detectron2's ResNet."
            )
    elif recipe_of(weights) != recipe:
        raise InputError(f'The checkpoint {source} holds a model of the other recipe: give --to {recipe_of(weights)}.')
    if not released:
        return dict(model=to_released(weights, recipe))
    names, kept = _entry(released, 'names'), _entry(released, 'kept')
    lost = [
        theirs
        for theirs, ours in names.items()
        if not isinstance(kept.get(theirs) if ours is None else weights.get(ours), Tensor)
    ]
    if lost or not names:
        raise InputError(
            f'The checkpoint {source} lacks {lost[0] if lost else "the names"} of the release that it was converted '
            'from: give the file as this command wrote it.'
        )
    return dict(
        model={
            theirs: kept[theirs] if ours is None else as_there(theirs, weights[ours]) for theirs, ours in names.items()
        }
    )


def lost_on_the_way_back(contents: Contents) -> list[str]:
    """Names of what :func:`restore` leaves out of a file, and the iteration; not of what :func:`convert` added."""
    if 'released' in contents.others:
        return [str(name) for name in contents.others if name not in ('released', 'meta')]
    iteration = _entry(contents.others, 'meta').get('iter')
    counters = any(name.endswith('.num_batches_tracked') for name in contents.weights)
    return [
        *(f'meta (iteration {iteration})' if name == 'meta' and iteration else str(name) for name in contents.others),
        *(['num_batches_tracked of norms'] if counters else []),
    ]


def keep_classes(checkpoint: Mapping[str, Any], source: str, names: Sequence[str]) -> dict[str, Any]:
    """Make a detector of fewer classes of one, without training: its boxes, masks and scores of these stay the same.

    Args:
        checkpoint: ours, of a whole model.
        source: its file's name.
        names: classes to keep, in the order that they shall have.

    Raises:
        InputError: the checkpoint doesn't say its classes, or has not all of these.
    """
    weights, meta = dict(checkpoint['state_dict']), _entry(checkpoint, 'meta')
    metainfo = _entry(meta, 'dataset_meta')
    known = list(classes) if isinstance(classes := metainfo.get('classes'), list | tuple) else []
    if not known or not _is_whole(weights) or 'config' not in meta:
        raise InputError(
            f"--keep-classes: {source} doesn't say its classes and its config: give a detector as it was released, or "
            'a file that this command wrote.'
        )
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {close[0]}?' if close else f'it has {", ".join(known)}.'
            raise InputError(f'--keep-classes: {source} has no class {name!r}: {hint}')
        if list(names).count(name) > 1:
            raise InputError(f'--keep-classes: {name!r} is given twice: name each class once.')
    chosen = torch.tensor([known.index(name) for name in names])
    background = recipe_of(weights) == 'paper'
    of_masks = torch.cat([torch.tensor([0]), chosen + 1]) if background else chosen
    for layers, channels in ((BOX_LAYERS, chosen), (MASK_LAYERS, of_masks)):
        for name in (f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')):
            if name not in weights:
                continue
            count = len(known) + int(layers is MASK_LAYERS and background)
            if weights[name].shape[:1] != (count,):
                raise InputError(
                    f"--keep-classes: {name} of {source} is {tuple(weights[name].shape)} and the file's {len(known)} "
                    f'classes need {count} rows: give the file as it was trained.'
                )
            weights[name] = weights[name][channels]
    lists = {key: value for key in ('classes', 'palette') if isinstance(value := metainfo.get(key), list | tuple)}
    picked = {key: [value[i] for i in chosen] for key, value in lists.items() if len(value) == len(known)}
    return {**checkpoint, 'state_dict': weights, 'meta': {**meta, 'dataset_meta': picked}}


def is_ours(contents: Contents) -> bool:
    """Whether a file has MMDetection's layout."""
    return to_ours(contents.weights) is None and (contents.entry == 'state_dict' or _is_whole(contents.weights))


def config_of_classes(base: str, classes: Sequence[str]) -> str:
    """The text of a config for a checkpoint that :func:`keep_classes` made; ``base`` is the path of the model's own."""
    return f"""_base_ = {base!r}
model = dict(num_classes={len(classes)})
data = dict(dataset=dict(metainfo=dict(classes={tuple(classes)!r})))
train_dataloader = data
val_dataloader = data
test_dataloader = data
"""


def usage(checkpoint: Mapping[str, Any], config: Path, path: Path, tools: Path) -> str:
    """The command that uses a converted checkpoint: tests a detector, or trains one from a backbone.

    Args:
        checkpoint: what was written to ``path``.
        config: its config.
        path: its file.
        tools: folder of the commands.
    """
    if not _is_whole(checkpoint['state_dict']):
        options = ['--cfg-options', f'model.backbone.init_cfg.checkpoint={path}']
        return shlex.join(['python', str(tools / 'train.py'), str(config), *options])
    command = shlex.join(['python', str(tools / 'test.py'), str(config), str(path)])
    if 'dataset_meta' in checkpoint['meta']:
        return command
    classes = len(checkpoint['state_dict']['bbox_head.conv_cls.bias'])
    return (
        f'{command} --cfg-options model.num_classes={classes} test_dataloader.dataset.metainfo.classes=NAMES\n'
        f"The file doesn't name its {classes} classes: give NAMES as [person,car,...], in the order of training."
    )


def summary(conversion: Conversion) -> str:
    """What became of the file, for people: a line a fact, then a table of what was renamed."""
    translation = conversion.translation
    counts = Counter(translation.rows.values())
    rows = [(str(count), f'{translation.prefix}{row.theirs}', str(row.ours)) for row, count in counts.items()]
    rows.insert(0, ('tensors', 'released', 'here ({i} is a number, {*} a word)'))
    width = max(len(theirs) for _, theirs, _ in rows)
    facts = {
        'layout': translation.layout,
        'config': f'configs/{conversion.config.name}',
        'tensors': f'{len(translation.weights)} of {len(translation.weights) + len(translation.left_out)}',
        'parameters': f'{conversion.parameters:,}',
        'kept for the way back': _listed(list(translation.kept)),
        'left out': _listed([*translation.left_out, *conversion.other_entries]),
    }
    return '\n'.join(
        [
            *(f'{name:<22} {fact}' for name, fact in facts.items()),
            '',
            *(f'{count:>7}  {theirs:<{width}}  {ours}' for count, theirs, ours in rows),
        ]
    )


def _listed(names: list[str]) -> str:
    return ', '.join(names) if names else 'nothing'


def _entry(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry of a file that should be a dict, an empty one where it is anything else."""
    entry = content.get(name)
    return entry if isinstance(entry, Mapping) else {}


def _is_whole(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights are a detector's rather than a backbone's."""
    return any(name.startswith('bbox_head.') for name in weights)


def _count_classes(translation: Translation) -> int:
    """The number of classes that most layers agree on, 0 for a backbone."""
    background = int(translation.layout == 'paper')
    counts = Counter(
        len(translation.weights[name]) - extra
        for layers, extra in ((BOX_LAYERS, 0), (MASK_LAYERS, background))
        for layer in layers
        for name in (f'{layer}.weight', f'{layer}.bias')
        if name in translation.weights and translation.weights[name].dim()
    )
    return counts.most_common(1)[0][0] if counts else 0


def _find_config(translation: Translation, configs: Path, source: str) -> tuple[Path, nn.Module]:
    """The config whose model differs least from the file, and that model (or backbone), without memory.

    Of those that differ as little it is the one that the file was released with, else the longest schedule.
    """
    star = translation.layout != 'paper' and 'backbone.body.' not in translation.prefix
    released_as = {
        Path(urlparse(model['Weights']).path).name: model['Config']
        for model in load(configs / 'metafile.yml')['Models']
        if 'Weights' in model
    }
    in_file = _shapes(translation.weights)
    modules: dict[str, nn.Module] = {}
    ranked = []
    for path in sorted(configs.rglob('centermask*_coco.py')):
        if ('-star' in path.stem) != star:
            continue
        model = Config.fromfile(path).model
        if translation.layout in RECIPES:
            model.num_classes = _count_classes(translation) or model.num_classes
        else:
            model = model.backbone
        described = str(model)
        if described not in modules:
            with torch.device('meta'), DefaultScope.overwrite_default_scope('mmdet'):
                modules[described] = MODELS.build(model)
        difference = len(_shapes(modules[described].state_dict()).items() ^ in_file.items())
        is_it = released_as.get(Path(urlparse(source).path).name) == f'configs/{path.name}'
        ranked.append((-difference, is_it, -len(path.stem), path, described))
    *_, path, described = max(ranked)
    return path, modules[described]


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors, without batch counters of BN, which files may lack."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items() if not name.endswith('.num_batches_tracked')}


def _faults(module: nn.Module, weights: Mapping[str, Tensor], translation: Translation) -> list[str]:
    """What the file lacks, has in another shape or has too much, a phrase each, in the file's names."""
    in_file = {name: tuple(tensor.shape) for name, tensor in weights.items() if name not in translation.left_out}
    absorbed = translation.layout in ('detectron2', 'caffe2') and not has_statistics(translation.weights)
    may_lack = ('.num_batches_tracked', *(STATISTICS if absorbed else ()))
    required = _shapes_of_panoptic(translation)
    optional: dict[str, tuple[int, ...]] = {}
    for ours, tensor in module.state_dict().items():
        theirs = translation.table.to_theirs(ours) or ours
        shapes = optional if ours.endswith(may_lack) else required
        shapes[translation.prefix + theirs] = tuple(as_there(theirs, tensor).shape)
    if translation.layout == 'star':
        optional |= {f'{translation.prefix}pixel_{kind}': (3, 1, 1) for kind in ('mean', 'std')}
    wanted = required | optional
    return [
        *(f'{name} is missing' for name in required if name not in in_file),
        *(
            f'{name} is {in_file[name]} and should be {shape}'
            for name, shape in wanted.items()
            if in_file.get(name, shape) != shape
        ),
        *(f'{name} is unknown' for name in in_file if name not in wanted),
    ]


def _shapes_of_panoptic(translation: Translation) -> dict[str, tuple[int, ...]]:
    """Of a panoptic model's semantic head and the pyramid's level P2, nothing if the file has none of them."""
    in_file = {name.removeprefix(translation.prefix): tuple(t.shape) for name, t in translation.kept.items()}
    if all(name.startswith('pixel_') for name in in_file):
        return {}
    # Each of the predictor's two has as many classes as the other; where both are missing, as the released models.
    by_weight = in_file.get('sem_seg_head.predictor.weight', (54,))[:1]
    by_bias = in_file.get('sem_seg_head.predictor.bias', by_weight)[:1]
    shapes: dict[str, tuple[int, ...]] = {
        'backbone.fpn_lateral2.weight': (256, 256, 1, 1),
        'backbone.fpn_lateral2.bias': (256,),
        'backbone.fpn_output2.weight': (256, 256, 3, 3),
        'backbone.fpn_output2.bias': (256,),
        'sem_seg_head.predictor.weight': (*by_bias, 128, 1, 1),
        'sem_seg_head.predictor.bias': by_weight,
    }
    for level, convs in ((2, 1), (3, 1), (4, 2), (5, 3)):
        for i in range(convs):  # between two of them the features are made larger
            conv = f'sem_seg_head.p{level}.{2 * i}'
            shapes[f'{conv}.weight'] = (128, 128 if i else 256, 3, 3)
            shapes[f'{conv}.norm.weight'] = shapes[f'{conv}.norm.bias'] = (128,)
    return {translation.prefix + name: shape for name, shape in shapes.items()}
