"""The index of models: every config, with its settings, and every row of the paper's tables, with the paper's figures.

Of the released models it has all, with their authors' figures; mim finds entries by config name.
"""

import configparser
import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import mmengine
import pytest
from helpers.weights_server import serve_weights
from mmengine.config import Config
from modelindex.load_model_index import load

from centermask.benchmark.metafile import LATENCY, NOT_MEASURED, TABLES, Row, read_metafile
from centermask.engine.model_names import find_config

REPOSITORY = Path(__file__).resolve().parents[1]
METAFILE = mmengine.load(REPOSITORY / 'configs/metafile.yml')
ROWS, _ = read_metafile(REPOSITORY / 'configs/metafile.yml')
MODELS = {model['Name']: model for model in METAFILE['Models']}
RELEASED = {
    name: model
    for name, model in MODELS.items()
    if 'Weights' in model and model['In Collection'] in ('CenterMask', 'CenterMask2')
}
COLLECTIONS = {collection['Name']: collection for collection in METAFILE['Collections']}
LICENCES = {'star': 'CC BY-NC 4.0', 'paper': 'BSD 2-Clause'}
CSVS = {
    1: 'table1_components',
    2: 'table2_feature_levels',
    3: 'table3_backbones',
    4: 'table4_vovnet',
    5: 'table5_state_of_the_art',
}


def _file(url: str) -> str:
    """The released file that a link leads to, the same by any of the host's names."""
    return urlsplit(url).path


@pytest.fixture(scope='module')
def released(shared: Path) -> list[dict[str, str]]:
    with (shared / 'paper/released_models.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_has_all_released_models(released: list[dict[str, str]]) -> None:
    assert len(RELEASED) == 34
    assert {_file(model['Weights']) for model in RELEASED.values()} == {_file(row['checkpoint']) for row in released}
    assert {model['Weights'] for model in RELEASED.values()} <= {row['checkpoint'] for row in released}


def test_average_precision(released: list[dict[str, str]]) -> None:
    """Of every split that the authors name, and nothing else."""
    expected: dict[str, dict[tuple[str, str], float]] = {}
    for row in released:
        results = expected.setdefault(_file(row['checkpoint']), {})
        for metric, column in {'box AP': 'box_ap', 'mask AP': 'mask_ap', 'PQ': 'pq'}.items():
            if row[column]:
                results[f'COCO {row["split"]}', metric] = float(row[column])
    listed = {
        _file(model['Weights']): {
            (result['Dataset'], metric): value
            for result in model['Results']
            for metric, value in result['Metrics'].items()
        }
        for model in RELEASED.values()
    }
    assert listed == expected


def test_of_one_recipe_and_backbone(released: list[dict[str, str]]) -> None:
    """The config is that of the row: its recipe, size, backbone and schedule."""
    files = {_file(row['checkpoint']): row for row in released}
    for model in RELEASED.values():
        row = files[_file(model['Weights'])]
        method, backbone, _, schedule, _ = Path(model['Config']).stem.split('_')
        theirs = row['backbone'].lower().removesuffix('-fpn').removesuffix('-32x8d')
        theirs = theirs.replace('v-', 'v2-').replace('mv2', 'mobilenetv2').replace('-', '')
        assert (backbone.replace('-', ''), schedule) == (theirs, row['schedule'])
        assert ('star' in method, 'lite' in method) == (row['recipe'] == 'star', 'Lite' in row['method'])
        assert method.startswith('panoptic') == bool(row['pq'])
        assert COLLECTIONS[model['In Collection']]['Metadata']['License'] == LICENCES[row['recipe']]


def test_config() -> None:
    """Each entry has its config's name."""
    for name, model in MODELS.items():
        assert (REPOSITORY / model['Config']).is_file(), name
        assert name == Path(model['Config']).stem


def test_every_config_has_an_entry() -> None:
    """One each, of its own name; the demo and own data are no results on COCO."""
    assert len(MODELS) == len(METAFILE['Models'])
    assert sorted(MODELS) == sorted(path.stem for path in (REPOSITORY / 'configs').rglob('*_coco.py'))


def test_aliases() -> None:
    """Each released model has its shortest name, unless that means another one."""
    aliases = {model['Alias']: name for name, model in MODELS.items() if 'Alias' in model}
    shortest = {name.partition('_fpn')[0] for name, model in MODELS.items() if 'Weights' in model}
    assert aliases == {name: find_config(name).stem for name in shortest}


IMAGES = {'yolact': 8, 'shapemask': 64}  # of a batch


def test_settings() -> None:
    """The settings of each entry are those of its config."""
    for name in MODELS:
        _check_settings(name, Config.fromfile(REPOSITORY / MODELS[name]['Config']), MODELS[name]['Metadata'])


def _check_settings(name: str, config: Config, metadata: dict) -> None:
    assert metadata['Iterations'] == config.train_cfg.max_iters
    assert (
        metadata['Batch Size']
        == config.auto_scale_lr.base_batch_size
        == IMAGES.get(name.split('-')[0].split('_')[0], 16)
    )
    assert metadata['Learning Rate'] == config.optim_wrapper.optimizer.lr
    (steps,) = [rule.milestones for rule in config.param_scheduler if rule.type == 'MultiStepLR']
    assert metadata['Learning Rate Steps'] == ', '.join(map(str, steps))
    assert metadata['Training Sizes'] == _sizes(config)
    roi_head = config.model.get('roi_head') or {}
    assert ('mask scoring' in metadata['Architecture']) == bool(roi_head.get('mask_iou_head'))
    assert ('semantic head' in metadata['Architecture']) == ('semantic_head' in config.model)
    assert ('FCOS' in metadata['Architecture']) == (
        config.model.get('bbox_head', {}).get('type') == 'CenterMaskFCOSHead'
    )
    extractor = roi_head.get('mask_roi_extractor', {})
    if extractor.get('type') == 'ScaleAdaptiveRoIExtractor':
        equation = 1 if extractor.get('assignment') == 'fpn' else 2
        levels = f'RoIs to P3-P{2 + len(extractor.featmap_strides)} by Eq. {equation}'
        assert levels in metadata['Architecture']
    if config.model.backbone.type == 'VoVNet':
        version = metadata['Architecture'][0].removeprefix('VoVNetV')
        assert version.startswith(f'{1 + (config.model.backbone.get("attention", "ese") == "ese")}-')
        assert config.model.backbone.arch.partition('-')[0] in version


def _sizes(config: Config) -> str:
    """The sizes of training images in the words of the index."""
    (resize,) = [t for t in config.train_dataloader.dataset.pipeline if t.type.endswith('Resize')]
    if resize.type == 'RandomChoiceResize':
        return f'shorter side {", ".join(str(min(scale)) for scale in resize.scales)}'
    if resize.type == 'RandomResize' and 'ratio_range' in resize:
        low, high = (int(ratio * max(resize.scale)) for ratio in resize.ratio_range)
        return f'longer side {low} to {high}, cropped to {max(resize.scale)}'
    if resize.type == 'RandomResize':
        return f'shorter side {min(resize.scale[0])} to {min(resize.scale[1])}'
    if not resize.get('keep_ratio', True):
        return f'{resize.scale[0]} x {resize.scale[1]}'
    return f'shorter side {min(resize.scale)}'


def test_measured() -> None:
    """Counts are there; what was not measured says so in these words, and an own AP names its log."""
    for name in MODELS:
        metadata = MODELS[name]['Metadata']
        assert metadata['Parameters'] > 1e6 and metadata['FLOPs'] > 1e10, name
        own = [metadata[f'Own {kind} AP'] for kind in ('mask', 'box')]
        assert all(value == NOT_MEASURED or 0 < value < 100 for value in own)
        assert ('Log' in metadata) == any(value != NOT_MEASURED for value in own)
        latency = metadata[LATENCY]
        assert latency == NOT_MEASURED or (latency[0]['value'] > 0 and latency[0]['hardware'])


def test_figures_of_others_are_marked() -> None:
    """An entry's `Results` are of its weights, and so of those who released them; the paper's figures are in `Rows`."""
    for collection in COLLECTIONS.values():
        assert collection['Metadata']['Results'].endswith('not measured here')
    for model in METAFILE['Models']:
        assert ('Results' in model) == ('Weights' in model)
        results = COLLECTIONS[model['In Collection']]['Metadata']['Results']
        assert results.startswith('reported by the authors') or 'Weights' not in model


# The paper's tables

COLUMNS = {
    'component': 'Component',
    'levels': 'Levels',
    'backbone': 'Backbone',
    'variant': 'Variant',
    'method': 'Method',
    'params_m': 'Params (M)',
    'time_ms_titan_xp': 'ms (Titan Xp)',
    'time_ms': 'ms',
    'fps': 'FPS',
    'gpu': 'GPU',
    'epochs': 'Epochs',
    **{
        f'{kind}_ap{f"_{size}" if size else ""}': f'{kind} AP{f" {size.upper()}" if size else ""}'
        for kind in ('mask', 'box')
        for size in ('', 's', 'm', 'l')
    },
}


def _value(text: str) -> float | str:
    """A number of a CSV file, or its words."""
    try:
        return float(text)
    except ValueError:
        return text


@pytest.mark.parametrize('number', TABLES)
def test_figures_are_the_papers(shared: Path, number: int) -> None:
    """Every row of the CSV, in its order, with every figure and no other; in columns of the same order."""
    with (shared / f'paper/{CSVS[number]}.csv').open(newline='') as file:
        expected = [{COLUMNS[key]: text for key, text in row.items()} for row in csv.DictReader(file)]
    rows = [row for row in ROWS if row.table == number]
    assert len(rows) == TABLES[number].rows
    assert [{**row.names, **row.paper} for row in rows] == [
        {key: _value(text) for key, text in row.items() if text} for row in expected
    ]
    assert list(expected[0]) == [*TABLES[number].names, *TABLES[number].figures]
    assert not any(isinstance(value, float) and math.isnan(value) for row in rows for value in row.paper.values())


BACKBONES = {
    'M-v2': 'mobilenetv2',
    'MobileNetV2': 'mobilenetv2',
    'R-50': 'r50',
    'R-101': 'r101',
    'X-101': 'x101',
    'ResNet-50': 'r50',
    'ResNet-101': 'r101',
    'ResNeXt-101': 'x101',
}
VARIANTS = {
    'V1': 'v1-{}',
    'V1 + residual': 'v1-{}-residual',
    'V1 + residual + SE': 'v1-{}-residual-se',
    'V1 + residual + eSE (= V2)': 'v2-{}',
}
SCHEDULES = {24: '2x', 36: '3x', 48: '4x', 72: '6x'}
PARTS = ('fcos_r50', 'centermask_r50-eq1', 'centermask_r50-eq2', 'centermask_r50-sam', 'centermask_r50')


def _config_of(row: Row) -> str:
    """The config that the words of a row mean."""
    if row.table == 1:
        return f'{PARTS[row.number - 1]}_fpn_1x_coco'
    if row.table == 2:
        levels = '' if row.names['Levels'] == 'P3-P5' else f'-{row.names["Levels"].lower()}'
        return f'centermask_r50{levels}_fpn_1x_coco'
    backbone = row.names['Backbone'].removesuffix('-FPN')
    if row.table == 4:
        return f'centermask_{VARIANTS[row.names["Variant"]].format(backbone.removeprefix("VoVNet-"))}_fpn_1x_coco'
    if row.table == 5 and backbone.startswith('V-'):
        backbone = backbone.replace('V-', 'v2-')
    backbone = BACKBONES.get(backbone, backbone.replace('VoVNetV', 'v').lower())
    if row.table == 3:
        return f'centermask_{backbone}_fpn_1x_coco'
    method = row.names['Method'].lower().replace('mask r-cnn', 'mask-rcnn').replace('*', '-star')
    if method.startswith('yolact'):
        return f'{method}_{backbone}_coco'
    epochs = 24 if method == 'shapemask' else int(row.paper['Epochs'])  # the paper's table has none of it
    return f'{method}_{backbone}_fpn_{SCHEDULES[epochs]}_coco'


def test_config_of_each_row() -> None:
    rows = ROWS
    assert {str(row): Path(row.config).stem for row in rows} == {str(row): _config_of(row) for row in rows}


def test_epochs_of_table_5() -> None:
    """The iterations make the paper's epochs: of 117266 images with objects, but YOLACT counts its own way (55).

    TensorMask's are its release's 6x, 73.7 of them.
    """
    for row in ROWS:
        if row.table == 5 and 'yolact' not in row.config:
            epochs = row.measured['Iterations'] * row.measured['Batch Size'] / 117266
            stated = 24 if 'shapemask' in row.config else float(row.paper['Epochs'])  # the paper has N/A there
            assert epochs == pytest.approx(stated, abs=1.7), row


# mim


def test_index_of_the_repository() -> None:
    """What the folder holds for users, the package holds for mim."""
    for index in (REPOSITORY / 'model-index.yml', REPOSITORY / 'projects/centermask/.mim/model-index.yml'):
        assert [model.name for model in load(str(index)).models] == list(MODELS)


def test_code_of_the_collections() -> None:
    """Ours is of this version; two models are MMDetection's."""
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / 'setup.cfg')
    for collection in METAFILE['Collections']:
        code = collection['Code']
        if collection['Name'] in ('Mask R-CNN', 'YOLACT'):
            assert f'/{code["Version"]}/mmdet/models/detectors/' in code['URL']
        else:
            assert (REPOSITORY / code['URL']).is_file()
            assert code['Version'] == f'v{settings["metadata"]["version"]}'


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package as for a wheel: mim doesn't look into the folder of an editable installation."""
    folder = tmp_path_factory.mktemp('installed')
    build = [sys.executable, '-c', 'import setuptools; setuptools.setup()', '-q', 'build_py', '--build-lib', folder]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    metadata = folder / 'centermask-0.1.0.dist-info/METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: centermask\nVersion: 0.1.0\n')
    return folder


def _mim(installed: Path, *words: str | Path) -> None:
    command = [sys.executable, '-m', 'mim', *map(str, words)]
    subprocess.run(command, cwd=installed, env={**os.environ, 'PYTHONPATH': str(installed)}, check=True)


def test_mim_finds_them_in_an_installed_package(installed: Path, tmp_path: Path) -> None:
    _mim(installed, 'search', 'centermask', '--json', tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['weight'] == {name: model.get('Weights') for name, model in MODELS.items()}
    assert found['config'] == {name: model['Config'] for name, model in MODELS.items()}
    assert (
        found['parameters']['centermask_r50_fpn_1x_coco']
        == MODELS['centermask_r50_fpn_1x_coco']['Metadata']['Parameters']
    )
    assert found['own_mask_ap']['centermask_r50_fpn_1x_coco'] == NOT_MEASURED
    paths = [*found['config'].values(), *found['readme'].values()]
    assert len(paths) == 2 * len(MODELS) and all((installed / 'centermask/.mim' / path).is_file() for path in paths)
    for path in (REPOSITORY / 'configs').rglob('*.py'):
        assert (installed / 'centermask/.mim' / path.relative_to(REPOSITORY)).is_file()
    package = REPOSITORY / 'projects/centermask'
    files = {path.relative_to(package) for path in package.rglob('*.*') if path.is_file() and path.suffix != '.pyc'}
    assert files >= {Path('__main__.py'), Path('report/page.html')}
    assert [path for path in files if not (installed / 'centermask' / path).is_file()] == []


@pytest.mark.slow
def test_mim_downloads_one(installed: Path, tmp_path: Path) -> None:
    """Its file, here from a server on this machine, and its config."""
    name = 'centermask-lite-star_v2-19-slim_fpn_4x_coco'
    link = urlsplit(MODELS[name]['Weights'])
    index = installed / 'centermask/.mim/configs/metafile.yml'
    with serve_weights() as server:
        server.files[link.path] = b'weights'
        index.write_text(index.read_text().replace(f'https://{link.netloc}', server.address))
        _mim(installed, 'download', 'centermask', '--config', name, '--dest', tmp_path)
    assert (tmp_path / Path(link.path).name).read_bytes() == b'weights'
    assert Config.fromfile(tmp_path / f'{name}.py').model.backbone.arch == '19-slim'
