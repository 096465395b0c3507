"""tools/train.py, as a command and as a function."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from centermask import CenterMaskVisualizer
from centermask.engine.cli import run

REPOSITORY = Path(__file__).resolve().parents[2]
THREE_CLASSES = 'model.num_classes=3 ' + ' '.join(
    f"{loader}.dataset.metainfo.classes=('circle','square','star')" for loader in ('train_dataloader', 'val_dataloader')
)


@pytest.fixture
def train(tools: Callable, tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable:
    """Train the tiny config in ``tmp_path/run`` and return the exit code and what is on stderr."""

    def call(*args: str, config: Path = tiny_config, work_dir: Path = tmp_path / 'run') -> tuple[int, str]:
        CenterMaskVisualizer._instance_dict.clear()  # it would record into the folder of an earlier run
        code = run(lambda: tools('train')([str(config), '--work-dir', str(work_dir), *args]))
        return code, capsys.readouterr().err

    return call


def _scalars(work_dir: Path) -> list[dict]:
    """Return all training steps that the runs in a folder logged."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def test_command(tiny_config: Path, train: Callable, tmp_path: Path) -> None:
    """Trains, checkpoints and evaluates; then the training is resumed from where it stopped."""
    command = [sys.executable, 'tools/train.py', str(tiny_config), '--work-dir', str(tmp_path / 'run')]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((tmp_path / 'run').glob('iter*'))] == ['iter_1.pth', 'iter_2.pth']
    assert 'coco/segm_mAP' in done.stdout and 'eta:' in done.stdout
    assert train('--resume', '--cfg-options', 'train_cfg.max_iters=3')[0] == 0
    assert [step['iter'] for step in _scalars(tmp_path / 'run')] == [1, 2, 3]


def test_resumes_from_a_named_checkpoint(tiny_run: Path, train: Callable, tmp_path: Path) -> None:
    """One iteration and then another is, to optimiser and schedule, what two are."""
    assert train('--resume', str(tiny_run / 'iter_1.pth'))[0] == 0
    whole, parts = (torch.load(folder / 'iter_2.pth') for folder in (tiny_run, tmp_path / 'run'))
    assert parts['meta']['iter'] == 2
    assert whole['optimizer']['state'][0]['step'] == parts['optimizer']['state'][0]['step']
    assert whole['param_schedulers'][0]['last_step'] == parts['param_schedulers'][0]['last_step']


def test_resuming_needs_no_backbone(tiny_run: Path, train: Callable) -> None:
    backbone = 'model.backbone.init_cfg'
    init_cfg = (f'{backbone}._delete_=True', f'{backbone}.type=StrictPretrained', f'{backbone}.checkpoint=no.pth')
    assert train('--resume', str(tiny_run / 'iter_1.pth'), '--cfg-options', *init_cfg)[0] == 0
    assert train('--cfg-options', *init_cfg)[0] == 2


def test_resume_without_checkpoints_begins(train: Callable, tmp_path: Path) -> None:
    assert train('--resume', '--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=9')[0] == 0
    assert [step['iter'] for step in _scalars(tmp_path / 'run')] == [1]


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a GPU it is float16')
def test_amp(train: Callable, tmp_path: Path) -> None:
    assert train('--amp')[0] == 0
    first = _scalars(tmp_path / 'run')[0]
    assert 0 < first['loss'] < 10 and first['loss_mask_iou'] > 0


def test_auto_scale_lr(train: Callable, tmp_path: Path) -> None:
    code, text = train('--auto-scale-lr')
    assert code == 2 and 'has no auto_scale_lr.base_batch_size' in text
    scaled = ('auto_scale_lr.base_batch_size=8', 'auto_scale_lr.enable=False')
    rate = ('optim_wrapper.optimizer.lr=1e-3', 'param_scheduler.0.start_factor=0.01')
    assert train('--auto-scale-lr', '--cfg-options', 'train_cfg.max_iters=1', *rate, *scaled)[0] == 0
    # for 2 images instead of 8
    assert _scalars(tmp_path / 'run')[0]['lr'] == pytest.approx(1e-3 * 0.01 * 2 / 8)


@pytest.mark.slow
def test_ema_resumes_and_is_what_is_tested(train: Callable, tools: Callable, tiny_config: Path, tmp_path: Path) -> None:
    config = tmp_path / 'ema.py'
    config.write_text(f"_base_ = '{tiny_config}'\ncustom_hooks = [dict(type='EMAHook', momentum=0.5)]\n")
    assert train(config=config)[0] == 0
    first = torch.load(tmp_path / 'run/iter_2.pth')
    assert train('--resume', '--cfg-options', 'train_cfg.max_iters=3', config=config)[0] == 0
    second = torch.load(tmp_path / 'run/iter_3.pth')
    # The files hold the average where others hold the weights, and the weights where others hold the average.
    key = 'bbox_head.conv_cls.bias'
    weights, average = second['ema_state_dict'][f'module.{key}'], second['state_dict'][key]
    assert second['ema_state_dict']['steps'] == 3
    assert not torch.equal(weights, average)
    assert torch.allclose(average, (first['state_dict'][key] + weights) / 2, atol=1e-7)
    tested = run(lambda: tools('test')([str(config), str(tmp_path / 'run/iter_3.pth'), '--work-dir', str(tmp_path)]))
    assert tested == 0


@pytest.mark.slow
def test_ema_resumes_bit_for_bit(train: Callable, tmp_path: Path) -> None:
    assert train('--ema')[0] == 0
    assert train('--ema', '--resume', str(tmp_path / 'run/iter_1.pth'), work_dir=tmp_path / 'again')[0] == 0
    whole, parts = (torch.load(tmp_path / folder / 'iter_2.pth') for folder in ('run', 'again'))
    for entry in ('state_dict', 'ema_state_dict'):
        for key, value in whole[entry].items():
            assert torch.equal(value, parts[entry][key]), key
    code, text = train('--resume', work_dir=tmp_path / 'again')
    assert code == 2 and 'holds averaged weights, of a training with --ema: add --ema to go on' in text


@pytest.mark.slow
def test_patience(train: Callable, tmp_path: Path) -> None:
    """Without learning no validation is better than the first; resumed, the training has ended."""
    same = (
        'model.backbone.norm_eval=True',
        'optim_wrapper.optimizer.lr=0.0',
        'optim_wrapper.optimizer.weight_decay=0.0',
    )
    options = ('--cfg-options', *same, 'train_cfg.max_iters=5', 'train_cfg.val_interval=1')
    assert train('--patience', '2', *options)[0] == 0
    assert [step['iter'] for step in _scalars(tmp_path / 'run')] == [1, 2, 3]
    # A checkpoint has counted the validation after it.
    assert torch.load(tmp_path / 'run/iter_2.pth')['message_hub']['runtime_info']['early_stopping'][1] == 1
    assert train('--patience', '2', '--resume', *options)[0] == 0
    assert len(_scalars(tmp_path / 'run')) == 3
    log = max((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'The training ended early after iteration 3, since 2 validations had no better coco/segm_mAP' in log
    assert train('--patience', '3', '--resume', *options)[0] == 0
    assert [step['iter'] for step in _scalars(tmp_path / 'run')] == [1, 2, 3, 4]


@pytest.mark.slow
def test_freeze(tiny_run: Path, train: Callable, tmp_path: Path) -> None:
    start = tiny_run / 'iter_2.pth'
    short = ('train_cfg.max_iters=2', 'train_cfg.val_interval=9', 'param_scheduler.0.start_factor=1.0')
    assert train('--freeze', '2', '--cfg-options', f'load_from={start}', *short)[0] == 0
    before, after = (torch.load(path)['state_dict'] for path in (start, tmp_path / 'run/iter_2.pth'))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not [
        name for name in changed if name.startswith(('backbone.stem', 'backbone.stages.0', 'backbone.stages.1'))
    ]
    assert [name for name in changed if name.startswith('backbone.stages.2')]


@pytest.mark.slow
def test_loggers(train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard and MLflow have the losses and figures by iteration."""
    mlflow = pytest.importorskip('mlflow')
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    assert train('--logger', 'tensorboard', '--logger', 'mlflow')[0] == 0
    (folder,) = (tmp_path / 'run').glob('*/vis_data')
    events = accumulators.EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars('loss')] == [1, 2]
    assert [event.step for event in events.Scalars('coco/segm_mAP')] == [2]
    client = mlflow.MlflowClient(f'sqlite:///{tmp_path}/run/mlflow.db')
    (run,) = client.search_runs([client.get_experiment_by_name('centermask').experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, 'loss')] == [1, 2]
    assert [point.step for point in client.get_metric_history(run.info.run_id, 'coco/segm_AR_100')] == [2]
    assert run.data.params['train_cfg.max_iters'] == '2'
    assert (folder / 'scalars.json').is_file()
    # The config of the work folder records another training in the folder of that.
    mlflow.end_run()
    monkeypatch.delenv('MLFLOW_TRACKING_URI')  # where MLflow keeps the place of this process
    other = tmp_path / 'other'
    assert train('--logger', 'mlflow', config=tmp_path / 'run/tiny.py', work_dir=other)[0] == 0
    client = mlflow.MlflowClient(f'sqlite:///{other}/mlflow.db')
    (run,) = client.search_runs([client.get_experiment_by_name('centermask').experiment_id])
    assert run.info.run_name == 'other'


def test_starts_from_another_number_of_classes(tiny_run: Path, train: Callable, tmp_path: Path) -> None:
    options = [*THREE_CLASSES.split(), 'train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    assert train('--cfg-options', f'load_from={tiny_run / "iter_2.pth"}', *options)[0] == 0
    (log,) = (tmp_path / 'run').glob('*/*.log')
    fresh = [line for line in log.read_text().splitlines() if line.endswith('start fresh.')]
    assert len(fresh) == 1
    assert 'was trained on 5 classes and the config has 3: bbox_head.conv_cls, ' in fresh[0]
    for layer in ('roi_head.mask_head.conv_logits', 'roi_head.mask_iou_head.fc_mask_iou'):
        assert layer in fresh[0]


@pytest.fixture(scope='module')
def bad_files(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('bad')
    (folder / 'truncated.pth').write_bytes((tiny_run / 'iter_2.pth').read_bytes()[:100_000])
    torch.save(torch.load(tiny_run / 'iter_2.pth')['state_dict'], folder / 'weights.pth')
    (folder / 'invalid.py').write_text('model = dict(')
    (folder / 'file').write_text('')
    return folder


BAD = [
    ('--resume {bad}/no.pth', "The checkpoint {bad}/no.pth doesn't exist: give the path of a file."),
    ('--cfg-options load_from={bad}/no.pth', "The checkpoint {bad}/no.pth doesn't exist: give the path of a file."),
    ('--resume {bad}/truncated.pth', 'The checkpoint {bad}/truncated.pth is truncated or no checkpoint at all'),
    ('--resume {bad}/weights.pth', 'The checkpoint {bad}/weights.pth holds weights only and no state of a training'),
    (
        f'--resume {{run}}/iter_2.pth --cfg-options {THREE_CLASSES}',
        'it was trained on 5 classes and the config has 3: bbox_head.conv_cls.weight is (5, 128, 3, 3) in the file and '
        '(3, 128, 3, 3) in the model',
    ),
    (
        '--resume {run}/iter_2.pth --cfg-options model.backbone.arch=19-slim-dw',
        "doesn't fit the config's model, it belongs to another model: backbone.stem.1",
    ),
    (
        f'--cfg-options load_from={{run}}/iter_2.pth model.backbone.arch=19-slim-dw {THREE_CLASSES}',
        "doesn't fit the config's model, it belongs to another model: backbone.stem.1",
    ),
    (
        '--cfg-options model.backbone.nrom_eval=True',
        'model.backbone.nrom_eval is no argument of VoVNet; did you mean norm_eval?',
    ),
    (
        '--cfg-options model.backbone.init_cfg._delete_=True model.backbone.init_cfg.type=StrictPretrained '
        'model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/vovnet.pth',
        "The checkpoint http://127.0.0.1:9/vovnet.pth can't be fetched (127.0.0.1:9: Connection refused): "
        'download it by a browser as ',
    ),
    (
        '--cfg-options model.num_classes=3',
        ' has 3 classes and the data have 5 (circle, triangle, square, star, cross): set model.num_classes=5',
    ),
    ('--launcher pytorch', '--launcher pytorch is for processes that it started and this is none: use tools/dist_'),
    (
        '--cfg-options train_dataloader.dataset.ann_file=no.json',
        'no.json does not exist: correct ann_file and data_root.',
    ),
]


@pytest.mark.parametrize(('args', 'words'), BAD, ids=[args[:50] for args, _ in BAD])
def test_bad_input(args: str, words: str, bad_files: Path, tiny_run: Path, train: Callable) -> None:
    places = {'bad': bad_files, 'run': tiny_run}
    code, text = train(*args.format(**places).split())
    last = text.splitlines()[-1]  # MMEngine may have warned before
    assert code == 2 and last.startswith('error: ') and words.format(**places) in last


def test_bad_paths(bad_files: Path, train: Callable) -> None:
    code, text = train(config=bad_files / 'no.py')
    assert (code, text) == (
        2,
        f"error: The config {bad_files}/no.py doesn't exist: give the path of a file, or the name of a model.\n",
    )
    code, text = train(config=bad_files / 'invalid.py')
    assert code == 2 and text.startswith(f"error: The config {bad_files}/invalid.py can't be read, SyntaxError: ")
    code, text = train(work_dir=bad_files / 'file/run')
    assert code == 2 and text.endswith('(Not a directory): give another one by --work-dir.\n')


@pytest.mark.slow
def test_bad_input_of_the_command(tiny_config: Path, tmp_path: Path) -> None:
    """Run one of them as a command: one line on stderr, no traceback."""
    command = [sys.executable, 'tools/train.py', str(tiny_config), '--work-dir', str(tmp_path), '--resume', 'no.pth']
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: The checkpoint no.pth doesn't exist: give the path of a file.\n"


def test_unreadable_image(tiny_config: Path, train: Callable, tmp_path: Path) -> None:
    """An image that can't be read ends a training at its start, with the name of the file."""
    source = tiny_config.parent / 'shapes'
    for file in source.rglob('*'):
        target = tmp_path / 'shapes' / file.relative_to(source)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b'no image' if '/train/images/' in str(file) else file.read_bytes())
    data = [f'{loader}.dataset.data_root={tmp_path}/shapes/' for loader in ('train_dataloader', 'val_dataloader')]
    code, text = train('--cfg-options', *data, 'train_dataloader.num_workers=1')
    last = text.splitlines()[-1]
    assert code == 2 and last.startswith(f'error: The image {tmp_path}/shapes/train/images/')


@pytest.mark.parametrize('option', ['--resume', '--data', '--work-dir'])
def test_empty_option(option: str, tiny_config: Path, tools: Callable, capsys: pytest.CaptureFixture) -> None:
    """An unset shell variable would otherwise start another training over existing checkpoints."""
    with pytest.raises(SystemExit) as end:
        tools('train')([str(tiny_config), option, ''])
    assert end.value.code == 2
    assert f"argument {option}: '' is empty" in capsys.readouterr().err
