"""Durations of many workers, added up honestly."""

import json
import random
import statistics

import pytest

from bus_worker.durations import Durations


def counted(values: list[float]) -> Durations:
    durations = Durations()
    for value in values:
        durations.add(value)
    return durations


def test_a_quantile_is_at_most_five_percent_off():
    random.seed(7)
    values = [random.lognormvariate(-1, 1) for _ in range(5000)]
    exact = statistics.quantiles(values, n=20, method="inclusive")
    durations = counted(values)
    assert durations.quantile(0.5) == pytest.approx(exact[9], rel=0.05)
    assert durations.quantile(0.95) == pytest.approx(exact[18], rel=0.05)


def test_two_workers_add_up_to_what_one_would_have_seen():
    fast, slow = [0.1] * 90, [5.0] * 10
    maps = [json.loads(json.dumps(counted(part).to_map())) for part in (fast, slow)]
    joined = Durations.joined(maps)
    assert joined.to_map() == counted(fast + slow).to_map()
    assert joined.quantile(0.5) == pytest.approx(0.1, rel=0.05)
    assert joined.quantile(0.95) == pytest.approx(5.0, rel=0.05)


def test_what_came_since_an_earlier_look_is_told_apart():
    before, now = counted([0.1] * 50), counted([0.1] * 50 + [2.0] * 3)
    assert now.since(before).to_map() == counted([2.0] * 3).to_map()
    assert before.since(now).quantile(0.5) is None  # another worker's, begun anew


def test_nothing_counted_has_no_quantile():
    assert Durations().quantile(0.5) is None
    assert Durations.joined([]).quantile(0.95) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e9])
def test_what_no_clock_should_say_is_counted_at_the_edge(seconds):
    assert Durations.joined([counted([seconds]).to_map()]).quantile(0.5) is not None


def test_the_map_stays_small_whatever_is_counted():
    random.seed(1)
    values = [10 ** random.uniform(-9, 9) for _ in range(20_000)]
    assert len(json.dumps(counted(values).to_map())) < 3000
