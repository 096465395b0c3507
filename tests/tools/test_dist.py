"""tools/dist_train.sh, tools/dist_test.sh and tools/slurm_train.sh with two processes on the CPU."""

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='two processes on a GPU machine want two GPUs')


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(('', 0))
        return free.getsockname()[1]


def _run(script: str, *args: object, timeout: int = 300, **environ: str) -> subprocess.CompletedProcess:
    """Run one of the shell scripts; a hanging process fails by the time limit."""
    return subprocess.run(
        [str(REPOSITORY / 'tools' / script), *map(str, args)],
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': str(_free_port()), **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope='module')
def one_without_objects(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose two training images, one for each process, have objects and none."""
    folder = tmp_path_factory.mktemp('half')
    data = json.loads((tiny_config.parent / 'shapes/train/annotations.json').read_text())
    chosen = next(annotation['image_id'] for annotation in data['annotations'] if not annotation['iscrowd'])
    other = next(image['id'] for image in data['images'] if image['id'] != chosen)
    data['images'] = [image for image in data['images'] if image['id'] in (chosen, other)]
    data['annotations'] = [annotation for annotation in data['annotations'] if annotation['image_id'] == chosen]
    (folder / 'half.json').write_text(json.dumps(data))
    config = folder / 'half.py'
    config.write_text(f"""
_base_ = '{tiny_config}'
data = dict(ann_file='{folder}/half.json', filter_cfg=dict(filter_empty_gt=False))
train_dataloader = dict(batch_size=1, dataset=data)
train_cfg = dict(max_iters=4, val_interval=4)
""")
    return config


@pytest.mark.slow
def test_one_process_has_no_object(one_without_objects: Path, tools: Callable[[str], Callable], tmp_path: Path) -> None:
    """It must neither hang nor stop learning; then two processes test the result and find what one finds."""
    done = _run('dist_train.sh', one_without_objects, 2, '--work-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in log.read_text().splitlines() if 'loss_mask' in line]
    assert [step['iter'] for step in steps] == [1, 2, 3, 4]
    assert steps[-1]['loss_cls'] < steps[0]['loss_cls']

    checkpoint, predictions = tmp_path / 'iter_4.pth', []
    one, two = (['--work-dir', tmp_path / name, '--out', tmp_path / f'{name}.pkl'] for name in ('one', 'two'))
    tools('test')([str(word) for word in (one_without_objects, checkpoint, *one)])
    done = _run('dist_test.sh', one_without_objects, checkpoint, 2, *two)
    assert done.returncode == 0, done.stderr
    for *_, out in (one, two):
        predictions.append([sample['pred_instances'] for sample in pickle.loads(out.read_bytes())])
    assert [len(found) for found in predictions] == [3, 3]
    for by_one, by_two in zip(*predictions, strict=True):
        assert torch.allclose(by_one['mask_scores'], by_two['mask_scores'], atol=1e-4)


@pytest.mark.slow
def test_each_process_prints_the_sentence_of_an_error(tiny_config: Path, tmp_path: Path) -> None:
    done = _run('dist_train.sh', tiny_config, 2, '--work-dir', tmp_path, '--resume', 'no.pth')
    assert done.returncode == 1  # torchrun's
    lines = done.stderr.splitlines()
    assert "error: The checkpoint no.pth doesn't exist: give the path of a file." in lines
    assert 'exitcode  : 2' in done.stderr


def test_usage() -> None:
    for script, args in (('dist_train.sh', ['a.py']), ('dist_test.sh', ['a.py', 'b.pth']), ('slurm_train.sh', ['p'])):
        done = _run(script, *args)
        assert done.returncode == 2 and 'usage: ' in done.stderr


SRUN = """#!/usr/bin/env bash
# What Slurm's srun does with a job of two tasks on one machine.
echo "$@" > "$SRUN_LOG"
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NODELIST=localhost
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@"
wait $first
"""


@pytest.mark.slow
def test_slurm(tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / 'bin').mkdir()
    for name, text in (('srun', SRUN), ('scontrol', '#!/usr/bin/env bash\necho 127.0.0.1\n')):
        (tmp_path / 'bin' / name).write_text(text)
        (tmp_path / 'bin' / name).chmod(0o755)
    environ = {'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}', 'SRUN_LOG': str(tmp_path / 'log')}
    environ |= {'GPUS': '2', 'MASTER_PORT': str(_free_port())}
    work_dir = tmp_path / 'run'
    options = ['--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    done = _run(
        'slurm_train.sh', 'part', 'name', tiny_config, work_dir, *options, SRUN_ARGS='--time=60 --exclusive', **environ
    )
    assert done.returncode == 0, done.stderr
    assert (
        (tmp_path / 'log')
        .read_text()
        .startswith(
            '--partition=part --job-name=name --gres=gpu:2 --ntasks=2 --ntasks-per-node=2 --cpus-per-task=5 '
            '--kill-on-bad-exit=1 --time=60 --exclusive '
        )
    )
    (log,) = work_dir.glob('*/*.log')
    assert 'Distributed launcher: slurm' in log.read_text() and 'GPU number: 2' in log.read_text()
