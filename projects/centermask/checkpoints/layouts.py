"""Names of tensors in the released checkpoints and in MMDetection's layout.

Two code bases released CenterMask: ``star`` (CenterMask2, on Detectron2; ``panoptic`` with its semantic head) and
``paper`` (on maskrcnn-benchmark). ``tensormask`` is Detectron2's TensorMask. The other layouts are those of ImageNet
backbones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from centermask.checkpoints.names import NameTable, prefixed

# Backbones.


def _vovnet_conv(released: str, mmdet: str) -> list[tuple[str, str]]:
    """Rows of a conv of VoVNet with its norm: dense, deformable or depthwise."""
    return prefixed(
        released,
        mmdet,
        [
            ('/conv_offset.{*}', '.conv.conv_offset.{*}'),
            ('/conv.{*}', '.conv.{*}'),
            ('/norm.{*}', '.bn.{*}'),
            ('/dw_conv3x3.{*}', '.depthwise_conv.conv.{*}'),
            ('/pw_conv1x1.{*}', '.pointwise_conv.conv.{*}'),
            ('/pw_norm.{*}', '.pointwise_conv.bn.{*}'),
        ],
    )


VOVNET = _vovnet_conv('stem.stem_{i+1}', 'stem.{i}') + prefixed(
    'stage{s+2}.OSA{s+2}_{b+1}.',
    'stages.{s}.blocks.{b}.',
    [
        *_vovnet_conv('layers.{i}.OSA{s+2}_{b+1}_{i}', 'convs.{i}'),
        *_vovnet_conv('concat.OSA{s+2}_{b+1}_concat', 'aggregate'),
        *_vovnet_conv('conv_reduction.OSA{s+2}_{b+1}_reduction_0', 'reduce'),
        ('ese.fc.{*}', 'attention.fc.{*}'),
    ],
)

# timm's (https://github.com/huggingface/pytorch-image-models): dense and depthwise variants.
TIMM = [
    ('stem.{i}.conv.{*}', 'stem.{i}.conv.{*}'),
    ('stem.{i}.bn.{*}', 'stem.{i}.bn.{*}'),
    *prefixed(
        'stages.{s}.blocks.{b}.',
        'stages.{s}.blocks.{b}.',
        [
            ('conv_mid.{i}.conv.{*}', 'convs.{i}.conv.{*}'),
            ('conv_mid.{i}.bn.{*}', 'convs.{i}.bn.{*}'),
            ('conv_concat.conv.{*}', 'aggregate.conv.{*}'),
            ('conv_concat.bn.{*}', 'aggregate.bn.{*}'),
            ('attn.fc.{*}', 'attention.fc.{*}'),
        ],
    ),
]
_SEPARABLE = [
    ('.conv_dw.{*}', '.depthwise_conv.conv.{*}'),
    ('.conv_pw.{*}', '.pointwise_conv.conv.{*}'),
    ('.bn.{*}', '.pointwise_conv.bn.{*}'),
]
TIMM_DEPTHWISE = [
    ('stem.0.conv.{*}', 'stem.0.conv.{*}'),
    ('stem.0.bn.{*}', 'stem.0.bn.{*}'),
    *prefixed('stem.{i}', 'stem.{i}', _SEPARABLE),
    *prefixed(
        'stages.{s}.blocks.{b}.',
        'stages.{s}.blocks.{b}.',
        [
            ('conv_reduction.conv.{*}', 'reduce.conv.{*}'),
            ('conv_reduction.bn.{*}', 'reduce.bn.{*}'),
            *prefixed('conv_mid.{i}', 'convs.{i}', _SEPARABLE),
            ('conv_concat.conv.{*}', 'aggregate.conv.{*}'),
            ('conv_concat.bn.{*}', 'aggregate.bn.{*}'),
            ('attn.fc.{*}', 'attention.fc.{*}'),
        ],
    ),
]

RESNET_STAR = [
    ('stem.conv1.norm.{*}', 'bn1.{*}'),
    ('stem.conv1.{*}', 'conv1.{*}'),
    ('res{s+1}.{b}.shortcut.norm.{*}', 'layer{s}.{b}.downsample.1.{*}'),
    ('res{s+1}.{b}.shortcut.{*}', 'layer{s}.{b}.downsample.0.{*}'),
    ('res{s+1}.{b}.conv{i}.norm.{*}', 'layer{s}.{b}.bn{i}.{*}'),
    ('res{s+1}.{b}.conv{i}.{*}', 'layer{s}.{b}.conv{i}.{*}'),
]
RESNET_PAPER = [
    ('stem.conv1.weight', 'conv1.weight'),
    ('stem.bn1.{*}', 'bn1.{*}'),
    ('layer{s}.{b}.downsample.{i}.{*}', 'layer{s}.{b}.downsample.{i}.{*}'),
    ('layer{s}.{b}.conv{i}.{*}', 'layer{s}.{b}.conv{i}.{*}'),
    ('layer{s}.{b}.bn{i}.{*}', 'layer{s}.{b}.bn{i}.{*}'),
]


def _blobs(conv: str, norm: str, mmdet_conv: str, mmdet_norm: str) -> list[tuple[str, str]]:
    """Rows of a conv of Caffe2 with its norm, which may have no statistics of its own."""
    return [
        (f'{conv}_w', f'{mmdet_conv}.weight'),
        (f'{norm}_s', f'{mmdet_norm}.weight'),
        (f'{norm}_b', f'{mmdet_norm}.bias'),
        (f'{norm}_rm', f'{mmdet_norm}.running_mean'),
        (f'{norm}_riv', f'{mmdet_norm}.running_var'),
    ]


RESNET_CAFFE2 = _blobs('conv1', 'res_conv1_bn', 'conv1', 'bn1') + prefixed(
    'res{s+1}_{b}_',
    'layer{s}.{b}.',
    [
        *_blobs('branch1', 'branch1_bn', 'downsample.0', 'downsample.1'),
        *_blobs('branch2a', 'branch2a_bn', 'conv1', 'bn1'),
        *_blobs('branch2b', 'branch2b_bn', 'conv2', 'bn2'),
        *_blobs('branch2c', 'branch2c_bn', 'conv3', 'bn3'),
    ],
)


def _mobilenetv2() -> list[tuple[str, str]]:
    """Rows of torchvision's, which numbers all inverted residuals in one sequence, and the layers of each."""
    rows = [('features.0.0.{*}', 'conv1.conv.{*}'), ('features.0.1.{*}', 'conv1.bn.{*}')]
    blocks = [(stage, block) for stage, count in enumerate([1, 2, 3, 4, 3, 3, 1], 1) for block in range(count)]
    for feature, (stage, block) in enumerate(blocks, start=1):
        convs = ['expand_conv', 'depthwise_conv', 'linear_conv'][feature == 1 :]  # the first doesn't expand
        for i, conv in enumerate(convs):
            conv_and_norm = [(f'{3 * i}.{{*}}', 'conv.{*}'), (f'{3 * i + 1}.{{*}}', 'bn.{*}')]
            rows += prefixed(f'features.{feature}.conv.', f'layer{stage}.{block}.{conv}.', conv_and_norm)
    return rows


MOBILENETV2 = _mobilenetv2()

# Complete models.


def _fcos_head(centerness: str) -> list[tuple[str, str]]:
    return [
        ('cls_tower.{3i}.{*}', 'cls_convs.{i}.conv.{*}'),
        ('cls_tower.{3i+1}.{*}', 'cls_convs.{i}.gn.{*}'),
        ('bbox_tower.{3i}.{*}', 'reg_convs.{i}.conv.{*}'),
        ('bbox_tower.{3i+1}.{*}', 'reg_convs.{i}.gn.{*}'),
        ('cls_logits.{*}', 'conv_cls.{*}'),
        ('bbox_pred.{*}', 'conv_reg.{*}'),
        (f'{centerness}.{{*}}', 'conv_centerness.{*}'),
        ('scales.{i}.scale', 'scales.{i}.scale'),
    ]


def _fpn_of_detectron2(first_level: int) -> list[tuple[str, str]]:
    """Rows of a pyramid that begins at P2 or P3 and ends with P7."""
    last = 5 - first_level  # the place of P5 among the levels; P6 and P7 come after it
    return [
        ('top_block.p6.{*}', f'fpn_convs.{last + 1}.conv.{{*}}'),
        ('top_block.p7.{*}', f'fpn_convs.{last + 2}.conv.{{*}}'),
        (f'fpn_lateral{{i+{first_level}}}.{{*}}', 'lateral_convs.{i}.conv.{*}'),
        (f'fpn_output{{i+{first_level}}}.{{*}}', 'fpn_convs.{i}.conv.{*}'),
    ]


def _star(first_level: int) -> list[tuple[str, str]]:
    """Rows of CenterMask2's model on a pyramid that begins at P2 or P3."""
    return [
        *prefixed('backbone.bottom_up.', 'backbone.', [*VOVNET, *RESNET_STAR, *MOBILENETV2]),
        *prefixed('backbone.', 'neck.', _fpn_of_detectron2(first_level)),
        *prefixed('proposal_generator.fcos_head.', 'bbox_head.', _fcos_head('ctrness')),
        *prefixed(
            'roi_heads.',
            'roi_head.',
            [
                ('mask_head.mask_fcn{i+1}.{*}', 'mask_head.convs.{i}.conv.{*}'),
                ('mask_head.spatialAtt.conv.{*}', 'mask_head.spatial_attention.conv.{*}'),
                ('mask_head.deconv.{*}', 'mask_head.upsample.{*}'),
                ('mask_head.predictor.{*}', 'mask_head.conv_logits.{*}'),
                ('maskiou_head.maskiou_fcn{i+1}.{*}', 'mask_iou_head.convs.{i}.{*}'),
                ('maskiou_head.maskiou_fc{i+1}.{*}', 'mask_iou_head.fcs.{i}.{*}'),
                ('maskiou_head.maskiou.{*}', 'mask_iou_head.fc_mask_iou.{*}'),
            ],
        ),
    ]


STAR = _star(first_level=3)
PANOPTIC = [
    *_star(first_level=2),
    *prefixed(
        'sem_seg_head.',
        'semantic_head.',
        [
            ('p{i+2}.{2j}.weight', 'conv_upsample_layers.{i}.conv.{j}.conv.weight'),
            ('p{i+2}.{2j}.norm.{*}', 'conv_upsample_layers.{i}.conv.{j}.gn.{*}'),
            ('predictor.{*}', 'conv_logits.{*}'),
        ],
    ),
]
PAPER = [
    *prefixed('backbone.body.', 'backbone.', [*VOVNET, *RESNET_PAPER, *MOBILENETV2]),
    *prefixed(
        'backbone.fpn.',
        'neck.',
        [
            ('top_blocks.p6.{*}', 'fpn_convs.3.conv.{*}'),
            ('top_blocks.p7.{*}', 'fpn_convs.4.conv.{*}'),
            ('fpn_inner{i+2}.{*}', 'lateral_convs.{i}.conv.{*}'),
            ('fpn_layer{i+2}.{*}', 'fpn_convs.{i}.conv.{*}'),
        ],
    ),
    *prefixed('rpn.head.', 'bbox_head.', _fcos_head('centerness')),
    *prefixed(
        'roi_heads.',
        'roi_head.',
        [
            ('mask.feature_extractor.mask_fcn{i+1}.{*}', 'mask_head.convs.{i}.conv.{*}'),
            ('mask.feature_extractor.spatialAtt.conv.{*}', 'mask_head.spatial_attention.conv.{*}'),
            ('mask.predictor.conv5_mask.{*}', 'mask_head.upsample.{*}'),
            ('mask.predictor.mask_fcn_logits.{*}', 'mask_head.conv_logits.{*}'),
            ('maskiou.feature_extractor.maskiou_fcn{i+1}.{*}', 'mask_iou_head.convs.{i}.{*}'),
            ('maskiou.feature_extractor.maskiou_fc{i+1}.{*}', 'mask_iou_head.fcs.{i}.{*}'),
            ('maskiou.predictor.maskiou.{*}', 'mask_iou_head.fc_mask_iou.{*}'),
        ],
    ),
]

# Detectron2's TensorMask.
TENSORMASK = [
    *prefixed('backbone.bottom_up.', 'backbone.', RESNET_STAR),
    *prefixed('backbone.', 'neck.', _fpn_of_detectron2(first_level=2)),
    ('head.cls_subnet.{2i}.{*}', 'bbox_head.cls_convs.{i}.conv.{*}'),
    ('head.cls_score.{*}', 'bbox_head.conv_cls.{*}'),
    ('head.bbox_subnet.{2i}.{*}', 'bbox_head.reg_convs.{i}.conv.{*}'),
    ('head.bbox_pred.{*}', 'bbox_head.conv_reg.{*}'),
    ('head.mask_subnet.{2i}.{*}', 'mask_head.convs.{i}.conv.{*}'),
    ('head.mask_fuse.0.{*}', 'mask_head.fuse.0.conv.{*}'),
    ('head.mask_pred_{i}.{*}', 'mask_head.predictors.{i}.{*}'),
]


class Layout(NamedTuple):
    """A naming scheme of a released model."""

    name: str
    table: NameTable
    unused: str = '(?!)'  # pattern of tensors that the model here doesn't have


_PIXELS = r'pixel_(mean|std)'  # image normalisation
# Of a panoptic model the semantic head and the pyramid's level P2, which only it reads.
_UNUSED_OF_STAR = rf'{_PIXELS}|sem_seg_head\..+|backbone\.fpn_(lateral|output)2\.(weight|bias)'
_CLASSIFIER = r'(classifier|head\.fc|stem\.fc|fc1000|fc|linear|pred)\..+'
# In the order of preference, where a file could be of two of them.
LAYOUTS = [
    Layout('vovnet', NameTable(VOVNET), _CLASSIFIER),
    Layout('mobilenetv2', NameTable(MOBILENETV2), rf'{_CLASSIFIER}|features\.18\..+'),
    Layout('detectron2', NameTable(RESNET_STAR), rf'{_CLASSIFIER}|stem\.conv1\.bias'),
    Layout('caffe2', NameTable(RESNET_CAFFE2), r'(fc1000|last_out\w*|pred)_[wb]|conv1_b|.+_momentum'),
    Layout('timm', NameTable(TIMM), _CLASSIFIER),
    Layout('timm', NameTable(TIMM_DEPTHWISE), _CLASSIFIER),
    Layout('panoptic', NameTable(PANOPTIC), _PIXELS),
    Layout('star', NameTable(STAR), _UNUSED_OF_STAR),
    Layout('paper', NameTable(PAPER)),
    Layout('tensormask', NameTable(TENSORMASK), rf'{_PIXELS}|anchor_generator\..+'),
]
RECIPES = {layout.name: layout for layout in LAYOUTS if layout.name in ('star', 'panoptic', 'paper', 'tensormask')}


class Translation(NamedTuple):
    """A released checkpoint in MMDetection's names."""

    layout: str
    table: NameTable
    prefix: str  # what stood before every name
    weights: dict[str, Tensor]  # by MMDetection's names, in the file's order
    renamed: int  # how many names changed
    unused: list[str]  # released names of tensors without use here
    unknown: dict[str, Tensor]  # by released names

    def released_name(self, name: str) -> str:
        """Return the file's name of a tensor in ``weights`` or of one that it lacks."""
        released = self.table.to_release(name)
        return name if released is None else self.prefix + released


def from_release(weights: Mapping[str, Tensor], panoptic: bool = True) -> Translation | None:
    """Recognise the layout of a released checkpoint and translate it to MMDetection's.

    Args:
        weights: tensors by their names, which may all have the same prefix (``module.``, ``backbone.body.`` ...).
        panoptic: False takes a panoptic model as its instance branch, for a model without semantic head.

    Returns:
        The translation; None where most names are of no released layout.
    """
    best, most = None, 0
    panoptic = panoptic and any('sem_seg_head.' in name for name in weights)
    for layout in LAYOUTS:
        if layout.name == 'panoptic' and not panoptic:
            continue
        translation = _translate(weights, layout)
        recognised = translation.renamed + len(translation.unused)
        if 2 * translation.renamed > len(weights) - len(translation.unused) and recognised > most:
            best, most = translation, recognised
    if best is not None and best.layout == 'timm':
        return best._replace(weights=_for_bgr_of_255(best.weights))
    return best


def _translate(weights: Mapping[str, Tensor], layout: Layout) -> Translation:
    """Return the weights as if they were of this layout."""
    prefix = _common_prefix(layout.table, weights)
    known: dict[str, Tensor] = {}
    unknown: dict[str, Tensor] = {}
    unused: list[str] = []
    renamed = 0
    for name, tensor in weights.items():
        bare = name.removeprefix(prefix) if name.startswith(prefix) else ''
        if re.fullmatch(layout.unused, bare):
            unused.append(name)
        elif (mmdet := layout.table.from_release(bare)) is not None:
            # The scale of a level is a number here and a list of one in the releases.
            is_scale = mmdet.endswith('.scale') and tensor.shape == (1,)
            known[mmdet] = tensor.reshape(()) if is_scale else tensor
            renamed += mmdet != bare
        else:
            unknown[name] = tensor
    return Translation(layout.name, layout.table, prefix, known, renamed, unused, unknown)


def _common_prefix(table: NameTable, names: Mapping[str, Tensor]) -> str:
    """Return the prefix, up to a dot, of most of the names that the table knows."""
    prefixes: Counter[str] = Counter()
    for name in names:
        starts = [0, *(dot.end() for dot in re.finditer(r'\.', name))]
        known = next((start for start in starts if table.from_release(name[start:]) is not None), None)
        if known is not None:
            prefixes[name[:known]] += 1
    return prefixes.most_common(1)[0][0] if prefixes else ''


def _for_bgr_of_255(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold timm's input scaling into the first conv: RGB in [0, 1] over a deviation becomes BGR in [0, 255].

    The mean stays with the config.
    """
    name = 'stem.0.conv.weight'
    if name not in weights or weights[name].shape[1:] != (3, 3, 3):
        return weights
    is_57 = any(key.startswith('stages.2.blocks.3.') for key in weights)
    stem = weights[name]
    std = torch.tensor([0.5, 0.5, 0.5] if is_57 else [0.229, 0.224, 0.225], dtype=torch.float64, device=stem.device)
    return {**weights, name: (stem / (255 * std[:, None, None])).flip(1).to(stem.dtype)}
