"""The index of the released models: it has them all, with their authors' figures, and mim finds them by config name."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from modelindex.load_model_index import load

REPOSITORY = Path(__file__).resolve().parents[1]
METAFILE = yaml.safe_load((REPOSITORY / 'configs/metafile.yml').read_text())
MODELS = {model['Name']: model for model in METAFILE['Models']}
COLLECTIONS = {collection['Name']: collection for collection in METAFILE['Collections']}
LICENCES = {'star': 'CC BY-NC 4.0', 'paper': 'BSD 2-Clause'}


def _file(url: str) -> str:
    """The released file that a link leads to, the same by any of the host's names."""
    return urlsplit(url).path


@pytest.fixture(scope='module')
def released(shared: Path) -> list[dict[str, str]]:
    with (shared / 'paper/released_models.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_has_all_released_models(released: list[dict[str, str]]) -> None:
    assert len(MODELS) == len(METAFILE['Models']) == 34
    assert {_file(model['Weights']) for model in MODELS.values()} == {_file(row['checkpoint']) for row in released}
    assert {model['Weights'] for model in MODELS.values()} <= {row['checkpoint'] for row in released}


def test_average_precision(released: list[dict[str, str]]) -> None:
    """Of every split that the authors name, and nothing else."""
    expected: dict[str, dict[tuple[str, str], float]] = {}
    for row in released:
        results = expected.setdefault(_file(row['checkpoint']), {})
        for kind in ('box', 'mask'):
            results[f'COCO {row["split"]}', f'{kind} AP'] = float(row[f'{kind}_ap'])
    listed = {
        _file(model['Weights']): {
            (result['Dataset'], metric): value
            for result in model['Results']
            for metric, value in result['Metrics'].items()
        }
        for model in MODELS.values()
    }
    assert listed == expected


def test_of_one_recipe_and_backbone(released: list[dict[str, str]]) -> None:
    """The config is that of the row: its recipe, size, backbone and schedule."""
    files = {_file(row['checkpoint']): row for row in released}
    for model in MODELS.values():
        row = files[_file(model['Weights'])]
        method, backbone, _, schedule, _ = Path(model['Config']).stem.split('_')
        theirs = row['backbone'].lower().removesuffix('-fpn').removesuffix('-32x8d')
        theirs = theirs.replace('v-', 'v2-').replace('mv2', 'mobilenetv2').replace('-', '')
        assert (backbone.replace('-', ''), schedule) == (theirs, row['schedule'])
        assert ('star' in method, 'lite' in method) == (row['recipe'] == 'star', 'Lite' in row['method'])
        assert COLLECTIONS[model['In Collection']]['Metadata']['License'] == LICENCES[row['recipe']]


@pytest.mark.parametrize('name', MODELS)
def test_config(name: str) -> None:
    """The entry has its config's name; a panoptic model says that its instance part is what loads."""
    model = MODELS[name]
    assert (REPOSITORY / model['Config']).is_file()
    if name.startswith('panoptic-'):
        assert name == f'panoptic-{Path(model["Config"]).stem}'
        assert 'instance part' in model['Metadata']['Loads']
    else:
        assert name == Path(model['Config']).stem


def test_figures_are_marked_as_the_authors() -> None:
    for collection in COLLECTIONS.values():
        assert collection['Metadata']['Results'].startswith('reported by the authors')
        assert collection['Metadata']['Results'].endswith('not measured here')


def test_index_of_the_repository() -> None:
    """What the folder holds for users, the package holds for mim."""
    for index in (REPOSITORY / 'model-index.yml', REPOSITORY / 'projects/centermask/.mim/model-index.yml'):
        assert [model.name for model in load(str(index)).models] == list(MODELS)


def test_mim_finds_them_in_an_installed_package(tmp_path: Path) -> None:
    """Built as for a wheel: mim doesn't look into the folder of an editable installation."""
    build = [sys.executable, '-c', 'import setuptools; setuptools.setup()', '-q', 'build_py', '--build-lib', tmp_path]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    metadata = tmp_path / 'centermask-0.1.0.dist-info/METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: centermask\nVersion: 0.1.0\n')

    search = [sys.executable, '-m', 'mim', 'search', 'centermask', '--json', tmp_path / 'found.json']
    subprocess.run(search, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)}, check=True)
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['weight'] == {name: model['Weights'] for name, model in MODELS.items()}
    assert all((tmp_path / 'centermask/.mim' / config).is_file() for config in found['config'].values())
    for path in (REPOSITORY / 'configs').rglob('*.py'):
        assert (tmp_path / 'centermask/.mim' / path.relative_to(REPOSITORY)).is_file()
