"""Compute a step again that a training left out: python tools/replay.py WORK_DIR/not_finite_iter_N_rank_R.pth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmengine.registry import DefaultScope

from centermask.engine.cli import run
from centermask.engine.inferencer import require_device
from centermask.engine.replay import replay


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(':')[0])
    parser.add_argument('dump', help='the file that the training wrote')
    parser.add_argument('--device', default='cpu', help='where to compute (default cpu)')
    args = parser.parse_args(argv)
    require_device(args.device)
    DefaultScope.get_instance('replay', scope_name='mmdet')
    finite = replay(args.dump, args.device)
    print('Here everything is finite.' if finite else 'It is as in the training: not finite.')


if __name__ == '__main__':
    sys.exit(run(main))
