"""The rows of the ablation, each changed as the config of a row of the paper's tables is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from centermask.engine.configs import load_config
from centermask.utils.errors import InputError
from centermask.tables.explain import differences

# VoVNetV2-19-slim has one OSA module a stage and the first of a stage has no residual connection, so there it would
# change nothing. The pair gets the block counts of VoVNet-99, where the paper sees most of it, and fewer iterations,
# which take the same time there.
DEEP = {'model.backbone.arch': '19-slim-deep', 'train_cfg.max_iters': 270, 'param_scheduler.1.end': 270}


class Row(NamedTuple):
    """A model that is trained.

    Attributes:
        name: on the command line and in file names.
        title: for people.
        config: of the row in the paper's tables, without .py.
        against: name of the row that it is compared with in the results, None for none.
        table, number: where the paper has the figures of the row.
        compared: number in the same table of the row that the paper's difference is to.
    """

    name: str
    title: str
    config: str
    against: str | None
    table: int
    number: int
    compared: int | None

    @property
    def deep(self) -> bool:
        """Whether it has the deep backbone, from random weights."""
        return self.table == 4

    @property
    def reference(self) -> str:
        """The config that its own is compared with to learn what the row changes in the ablation's, without .py."""
        return 'centermask_v2-99_fpn_1x_coco' if self.deep else 'centermask_r50_fpn_1x_coco'


ROWS = (
    Row('fcos', 'FCOS alone', 'fcos_r50_fpn_1x_coco', None, 1, 1, None),
    Row('eq1', '+ mask head, Eq. 1', 'centermask_r50-eq1_fpn_1x_coco', 'fcos', 1, 2, 1),
    Row('eq2', 'Eq. 2 instead', 'centermask_r50-eq2_fpn_1x_coco', 'eq1', 1, 3, 2),
    Row('sam', '+ SAM', 'centermask_r50-sam_fpn_1x_coco', 'eq2', 1, 4, 3),
    Row('scoring', '+ mask scoring (P3-P5)', 'centermask_r50_fpn_1x_coco', 'sam', 1, 5, 4),
    Row('p3-p7', 'P3-P7', 'centermask_r50-p3-p7_fpn_1x_coco', 'scoring', 2, 1, 3),
    Row('p3-p6', 'P3-P6', 'centermask_r50-p3-p6_fpn_1x_coco', 'scoring', 2, 2, 3),
    Row('p3-p4', 'P3-P4', 'centermask_r50-p3-p4_fpn_1x_coco', 'scoring', 2, 4, 3),
    Row('v1', 'V1, deep', 'centermask_v1-99_fpn_1x_coco', None, 4, 9, None),
    Row('v1-residual', 'V1 + residual, deep', 'centermask_v1-99-residual_fpn_1x_coco', 'v1', 4, 10, 9),
)


def choose(names: list[str] | None) -> list[Row]:
    """The rows of these names, or all, in their order.

    Raises:
        InputError: there is no such row.
    """
    known = [row.name for row in ROWS]
    for name in names or ():
        if name not in known:
            raise InputError(f'--rows {name}: there is no such row; give some of {", ".join(known)}.')
    return [row for row in ROWS if names is None or row.name in names]


def changes(row: Row, configs: Path) -> dict[str, Any]:
    """What a row changes in the model, by dotted keys: as its config differs from the reference's.

    Args:
        row: the row.
        configs: the folder of the tables' configs.

    Raises:
        InputError: a config is missing.
    """
    config, reference = (load_config(configs / f'{name}.py') for name in (row.config, row.reference))
    # Where the weights of the large backbones come from is no part of a row.
    found = {
        key: value
        for key, value, _ in differences(config, reference)
        if key.startswith('model.') and 'init_cfg' not in key and not key.startswith('model.backbone.arch')
    }
    return {**found, **DEEP} if row.deep else found


def row_config(row: Row, base: Path, configs: Path, start: Path) -> Config:
    """The config that trains a row.

    Args:
        row: the row.
        base: the ablation's config.
        configs: the folder of the tables' configs.
        start: checkpoint that the backbone starts from, unless the row has the deep one.

    Raises:
        InputError: a config is missing.
    """
    config = load_config(base)
    config.merge_from_dict(changes(row, configs))
    if not row.deep:
        config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(start), prefix='backbone.')
    return config
