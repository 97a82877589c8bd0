"""Calls from several threads that fit together, made as one.

A call that finds a lane free is made at once, alone or with those that wait already; while every lane is
taken, calls gather, and the next lane to come free takes the oldest and all that fit with it. So a lone
call never waits for company, and a crowd needs no clock to form a batch.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Call(Generic[Item, Result]):
    """One thread's call; its thread runs the batch it leads, or waits for another's."""

    key: Hashable
    item: Item
    check: Callable[[], None]
    told: threading.Event = field(default_factory=threading.Event)
    leads: "list[_Call[Item, Result]]" = field(default_factory=list)
    """The batch that this call's thread is to run, itself first."""
    company: int = 0
    """Calls in the batch that it is part of."""
    result: Result | None = None
    error: Exception | None = None

    def wanted(self) -> bool:
        """Whether somebody still waits; if not, its thread hears why."""
        try:
            self.check()
        except Exception as exc:  # noqa: BLE001 - raised in the call's own thread
            self.error = exc
            self.told.set()
            return False
        return True


class Batcher(Generic[Item, Result]):
    """Runs `work` on items whose keys are equal, at most `most` at a time, in at most `lanes` threads at once."""

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], *, lanes: int, most: int
    ) -> None:
        """Args: work gives one result for each item, in their order; it runs in a caller's thread."""
        self._work = work
        self._free = lanes
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[_Call[Item, Result]] = deque()
        self.sizes: Counter[int] = Counter()
        """How many batches of each size were made."""

    def __call__(
        self,
        key: Hashable,
        item: Item,
        check: Callable[[], None] = lambda: None,
        met: Callable[[int, int], None] = lambda _all, _led: None,
    ) -> Result:
        """The item's result; blocks until it is there.

        Args:
            check: called once more before the work begins; raises when nobody waits any more.
            met: told how many calls went together, and how many of them this one led (all or none).

        Raises:
            Exception: what `check` raised, or `work` for this item alone.
        """
        call: _Call[Item, Result] = _Call(key, item, check)
        with self._lock:
            self._waiting.append(call)
            if self._free:
                self._free -= 1
                self._next()
        call.told.wait()
        if call.company:
            met(call.company, len(call.leads))
        if call.leads:
            self._run(call.leads)
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]  # None is a result, too

    def _next(self) -> None:
        """Give a lane (the lock is held) to the oldest call and those that fit; or leave it free."""
        self._waiting = deque(call for call in self._waiting if call.wanted())
        if not self._waiting:
            self._free += 1
            return
        first = self._waiting[0]
        batch = [call for call in self._waiting if call.key == first.key][: self._most]
        for call in batch:
            self._waiting.remove(call)
            call.company = len(batch)
        self.sizes[len(batch)] += 1
        first.leads = batch
        first.told.set()

    def _run(self, batch: "list[_Call[Item, Result]]") -> None:
        try:
            self._try(batch)
        finally:
            with self._lock:
                self._next()
            for call in batch[1:]:
                call.told.set()

    def _try(self, batch: "list[_Call[Item, Result]]") -> None:
        try:
            results = self._work([call.item for call in batch])
        except Exception as exc:  # noqa: BLE001 - raised where it belongs
            if len(batch) == 1:
                batch[0].error = exc
                return
        else:
            for call, result in zip(batch, results, strict=True):
                call.result = result
            return
        for call in batch:  # one of them is at fault: the others must not pay for it
            self._try([call])
