"""The README's table of released weights is the index's."""

from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]


def weights_table() -> list[str]:
    """A line for each checkpoint of configs/metafile.yml."""
    models = yaml.safe_load((REPOSITORY / 'configs/metafile.yml').read_text())['Models']
    lines = ['| config | mask AP | box AP | COCO | checkpoint |', '| --- | --- | --- | --- | --- |']
    for model in (model for model in models if 'Weights' in model):
        metrics: dict[str, dict[str, float]] = {}
        for result in model['Results']:
            metrics.setdefault(result['Dataset'].removeprefix('COCO '), {}).update(result['Metrics'])
        figures = [
            ', '.join(f'{of_split[kind]:.1f}' for of_split in metrics.values()) for kind in ('mask AP', 'box AP')
        ]
        note = ' ¹' if model['Name'].startswith('panoptic') else ''
        file = Path(model['Weights'].partition('?')[0]).name
        lines.append(
            f'| `{Path(model["Config"]).stem}`{note} | {" | ".join(figures)} | {", ".join(metrics)} '
            f'| [{file}]({model["Weights"]}) |'
        )
    return lines


def test_released_weights() -> None:
    assert '\n'.join(weights_table()) in (REPOSITORY / 'README.md').read_text()
