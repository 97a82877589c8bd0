"""Whether work that did not succeed is tried again, and when."""

from bus_worker.errors import BusWorkerError, Busy, RequestError, Stopping, Unavailable

__all__ = ["MAX_DEATHS", "MAX_FAILURES", "again_after", "is_failure"]

MAX_FAILURES = 5
"""Attempts that the work itself may end."""
MAX_DEATHS = 10
"""Attempts that nobody ended: the worker died, or the bus was away for long."""
LONGEST = 60.0
NOT_NOW = 5.0
"""Seconds before what was only not possible now is tried again."""


def is_failure(error: BusWorkerError) -> bool:
    """Whether the work itself failed: not that it was refused, stopped, or not possible now."""
    return not isinstance(error, RequestError | Stopping | Busy | Unavailable)


def again_after(error: BusWorkerError, failures: int) -> float | None:
    """Seconds after which it is tried again; None: never.

    Args:
        error: how it ended.
        failures: how often the work itself has failed, this time included.
    """
    if isinstance(error, Stopping):
        return 0.0
    if isinstance(error, Busy | Unavailable):
        return NOT_NOW
    if isinstance(error, RequestError) or failures >= MAX_FAILURES:
        return None
    return min(LONGEST, 2.0**failures)
