"""Calls that are made as one: who waits, for whom, and who pays for whose mistakes."""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bus_worker.batching import Batcher
from bus_worker.errors import Cancelled


class Work:
    """Doubles numbers, behind a gate; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.now = self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def __call__(self, items: Sequence[int]) -> list[int]:
        with self._lock:
            self.batches.append(list(items))
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            assert self.gate.wait(10)
            if 13 in items:
                raise ValueError("thirteen")
            return [2 * item for item in items]
        finally:
            with self._lock:
                self.now -= 1


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(64) as pool:
        yield pool


def gathered(batcher: Batcher, waiting: int) -> None:
    """Wait until that many calls wait for a lane."""
    end = time.monotonic() + 5
    while len(batcher._waiting) < waiting:
        assert time.monotonic() < end
        time.sleep(0.001)


def crowd(
    pool: ThreadPoolExecutor, batcher: Batcher, work: Work, calls: Sequence[tuple[object, int]]
) -> list["Future[int]"]:
    """One call takes the only lane; the others gather behind it, in their order."""
    work.gate.clear()
    futures = [pool.submit(batcher, "first", 0)]
    while not work.now:
        time.sleep(0.001)
    for number, (key, item) in enumerate(calls, 1):
        futures.append(pool.submit(batcher, key, item))
        gathered(batcher, number)
    work.gate.set()
    return futures


def test_a_lone_call_is_made_at_once_and_alone(work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    assert [batcher("a", n) for n in (1, 2)] == [2, 4]
    assert work.batches == [[1], [2]]
    assert batcher.sizes == {1: 2}


def test_what_gathers_behind_a_taken_lane_goes_as_one(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    futures = crowd(pool, batcher, work, [("a", n) for n in range(1, 6)])
    assert [f.result(5) for f in futures] == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2, 3, 4, 5]]
    assert batcher.sizes == {1: 1, 5: 1}


def test_each_call_hears_of_its_company_and_one_that_it_led(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    met: list[tuple[int, int]] = []
    work.gate.clear()
    futures = [pool.submit(batcher, "a", n, met=lambda *both: met.append(both)) for n in range(4)]
    gathered(batcher, 3)
    work.gate.set()
    assert sorted(f.result(5) for f in futures) == [0, 2, 4, 6]
    assert sorted(met) == [(1, 1), (3, 0), (3, 0), (3, 3)]
    assert sum(led for _, led in met) == 4


def test_only_what_fits_goes_together_and_the_oldest_goes_first(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    calls = [("b", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5)]
    futures = crowd(pool, batcher, work, calls)
    assert [f.result(5) for f in futures] == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 3], [2, 4], [5]]


def test_a_batch_has_its_limit(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=2)
    futures = crowd(pool, batcher, work, [("a", n) for n in range(1, 6)])
    assert [f.result(5) for f in futures] == [0, 2, 4, 6, 8, 10]
    assert work.batches == [[0], [1, 2], [3, 4], [5]]


def test_who_spoils_a_batch_fails_alone(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    futures = crowd(pool, batcher, work, [("a", 12), ("a", 13), ("a", 14)])
    assert futures[1].result(5) == 24
    with pytest.raises(ValueError, match="thirteen"):
        futures[2].result(5)
    assert futures[3].result(5) == 28
    assert batcher("a", 1) == 2


def test_nobody_works_for_one_who_has_left(pool, work: Work):
    batcher = Batcher(work, lanes=1, most=8)
    left = threading.Event()

    def check() -> None:
        if left.is_set():
            raise Cancelled

    work.gate.clear()
    futures = [pool.submit(batcher, "first", 0)]
    while not work.now:
        time.sleep(0.001)
    for number, one in enumerate([check, lambda: None], 1):
        futures.append(pool.submit(batcher, "a", number, one))
        gathered(batcher, number)
    left.set()
    work.gate.set()
    with pytest.raises(Cancelled):
        futures[1].result(5)
    assert futures[2].result(5) == 4
    assert work.batches == [[0], [2]]


def test_every_call_has_its_own_result_whatever_comes_together(pool, work: Work):
    batcher = Batcher(work, lanes=3, most=4)
    rng = random.Random(7)
    calls = [(rng.choice("abc"), n) for n in range(100, 600)]
    futures = [pool.submit(batcher, key, item) for key, item in calls]
    assert [f.result(10) for f in futures] == [2 * item for _, item in calls]
    assert work.most <= 3
    assert max(map(len, work.batches)) <= 4
    assert sum(size * count for size, count in batcher.sizes.items()) == 500
    assert batcher._free == 3
