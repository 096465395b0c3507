"""The order in which models run, and what is made of their times."""

from centermask.benchmark.rounds import interleaved, measure, summary, timed_on


def test_each_once_a_round_and_another_one_first() -> None:
    order = [name for _, name in interleaved(['a', 'b', 'c'], 4)]
    assert order == ['a', 'b', 'c', 'b', 'c', 'a', 'c', 'a', 'b', 'a', 'b', 'c']
    assert [number for number, _ in interleaved(['a', 'b'], 2)] == [0, 0, 1, 1]


def test_runs_by_turns_without_the_warm_up() -> None:
    ran, told = [], []
    runs = {name: lambda number, name=name: ran.append((number, name)) for name in 'ab'}

    def timed(run) -> float:
        run()
        return float(len(ran))

    seconds = measure(runs, 2, timed, warm_up=1, report=told.append)
    assert ran == [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    assert seconds == {'a': [4.0, 5.0], 'b': [3.0, 6.0]}
    assert [line.partition(',')[0] for line in told] == ['round 1 of 3', 'round 2 of 3']
    assert all(line.endswith(' s left') for line in told)


def test_summary() -> None:
    assert summary([0.001, 0.002, 0.004, 0.003, 0.1]) == (3.0, 2.0, 4.0)
    assert summary([0.005]) == (5.0, 5.0, 5.0)


def test_timed_on_a_cpu_runs_once() -> None:
    ran = []
    assert timed_on('cpu')(lambda: ran.append(1)) >= 0
    assert ran == [1]
