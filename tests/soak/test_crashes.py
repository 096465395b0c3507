"""Crashing a training, and what two checkpoints differ in."""

import random
import signal
from pathlib import Path

import torch

from soak.crashes import COMPARED, Crasher, Crashes, Reference, differences


def test_differences() -> None:
    one = {'a': torch.zeros(2), 'b': [1, torch.ones(1)], 'c': {'d': 1.0}}
    assert differences(one, {**one}) == []
    assert differences(one, {**one, 'a': torch.tensor([0, 1e-45])}, 'x') == ['x.a']
    assert differences(one, {**one, 'a': torch.zeros(2, dtype=torch.float64)}) == ['.a']
    assert differences(one, {**one, 'b': [1, torch.zeros(1)], 'c': {'d': 2.0}}) == ['.b.1', '.c.d']
    assert differences(one, {'a': one['a']}, 'x') == ['x (keys)']


CHECKPOINT = {name: torch.zeros(2) for name in COMPARED}


class Fake:
    """In the place of a training: saves its next checkpoint when it is started, and ends with the codes given."""

    def __init__(self, folder: Path, codes: list[list[int]], ended: bool = False, processes: int = 1) -> None:
        self.work_dir = folder
        self.codes = codes
        self.has_ended = ended
        self.processes = processes
        self.sent: list[tuple[int, int]] = []
        self.starts = 0
        self.removed = 0

    def start(self) -> None:
        self.starts += 1
        (self.work_dir / f'iter_{2 * self.starts}.pth').touch()
        (self.work_dir / f'.part-iter_{2 * self.starts + 2}.pth').touch()

    def ended(self) -> bool:
        return self.has_ended

    def send(self, number: int, rank: int) -> None:
        self.sent.append((number, rank))

    def wait(self) -> list[int]:
        return self.codes.pop(0)

    def finish(self) -> dict:
        return CHECKPOINT

    def remove_checkpoints(self) -> None:
        self.removed += 1


def _crash(training: Fake, number: signal.Signals, count: int, said: list[str] | None = None) -> Crashes:
    said = [] if said is None else said
    return Crasher(number, Reference(CHECKPOINT, 0.01), random.Random(0), said.append).crash(training, count)


def test_an_interruption_goes_to_the_last_process(tmp_path: Path) -> None:
    training, said = Fake(tmp_path, [[143, 143]] * 2, processes=2), []
    assert _crash(training, signal.SIGTERM, 2, said).differences == []
    assert training.sent == [(signal.SIGTERM, 1)] * 2
    assert 'SIGTERM 1 of 2: exit codes [143, 143]' in said[0]


def test_a_kill_goes_to_all_processes(tmp_path: Path) -> None:
    training = Fake(tmp_path, [[-9, -9]], processes=2)
    assert _crash(training, signal.SIGKILL, 1).signals == 1
    assert training.sent == [(signal.SIGKILL, 0), (signal.SIGKILL, 1)]


def test_wrong_exit_codes(tmp_path: Path) -> None:
    assert _crash(Fake(tmp_path, [[143, 1]], processes=2), signal.SIGTERM, 3) == (1, 1, ['exit codes [143, 1]'])
    training = Fake(tmp_path, [[1]], ended=True)
    assert _crash(training, signal.SIGKILL, 3) == (0, 0, ['exit codes [1] without a signal'])
    assert training.sent == []


def test_one_that_came_to_its_end_begins_anew(tmp_path: Path) -> None:
    training, said = Fake(tmp_path, [[0], [143]]), []
    assert _crash(training, signal.SIGTERM, 1, said).signals == 1
    assert (training.removed, training.starts) == (1, 2) and 'once more from the beginning' in said[0]
