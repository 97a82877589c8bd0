"""What is tried again, and when."""

import pytest

from bus_worker.errors import (
    BadAudio,
    BadRequest,
    BusWorkerError,
    Busy,
    ClaimExpired,
    DeadlineExceeded,
    Failed,
    Stopping,
    TooLarge,
    Unavailable,
)
from bus_worker.jetstream import NoStream
from bus_worker.jobs.judging import MAX_FAILURES, again_after, is_failure


@pytest.mark.parametrize(
    ("error", "counts", "waits"),
    [
        (BadRequest(), False, [None, None]),
        (BadAudio(), False, [None, None]),
        (TooLarge(), False, [None, None]),
        (ClaimExpired(), False, [None, None]),
        (Stopping(), False, [0, 0]),
        (Busy(), False, [5, 5]),
        (Unavailable(), False, [5, 5]),
        (NoStream(), False, [5, 5]),
        (Failed(), True, [2, 4]),
        (DeadlineExceeded(), True, [2, 4]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BusWorkerError) else "",
)
def test_only_work_that_failed_counts_and_waits_longer_each_time(error, counts, waits):
    assert is_failure(error) is counts
    assert [again_after(error, failures) for failures in (1, 2)] == waits


def test_work_that_failed_five_times_is_given_up():
    assert [again_after(Failed(), n) for n in range(1, 6)] == [2, 4, 8, 16, None]


@pytest.mark.parametrize("error", [Stopping(), Busy(), Unavailable()], ids=repr)
def test_what_was_only_not_possible_is_never_given_up(error: BusWorkerError):
    assert again_after(error, MAX_FAILURES) is not None
