"""The order in which models run, and the summary of their times."""

from centermask.benchmark.rounds import interleaved, measure, summary, timed_on


def test_each_once_a_round_and_another_one_first() -> None:
    order = [name for _, name in interleaved(['a', 'b', 'c'], 4)]
    assert order == ['a', 'b', 'c', 'b', 'c', 'a', 'c', 'a', 'b', 'a', 'b', 'c']


def test_rounds_without_the_warm_up() -> None:
    ran, lines = [], []

    def run(name: str, number: int) -> float:
        ran.append((number, name))
        return float(len(ran))

    runs = {name: lambda number, name=name: run(name, number) for name in 'ab'}
    seconds = measure(runs, 2, warm_up=1, log=lines.append)
    assert ran == [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    assert seconds == {'a': [4.0, 5.0], 'b': [3.0, 6.0]}
    assert [line.partition(',')[0] for line in lines] == ['round 1 of 3', 'round 2 of 3']


def test_summary() -> None:
    assert summary([0.001, 0.002, 0.004, 0.003, 0.1]) == (3.0, 2.0, 4.0)
    assert summary([0.005]) == (5.0, 5.0, 5.0)


def test_a_call_is_timed_once() -> None:
    ran = []
    assert timed_on('cpu')(lambda: ran.append(1)) >= 0
    assert ran == [1]
