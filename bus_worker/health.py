"""Whether this worker lives and can serve, and if not why: looked at in the event loop, told from any thread."""

import asyncio
import time
from collections.abc import Callable

import structlog

from bus_worker.bus import SILENT_AFTER, Bus
from bus_worker.service import Service
from bus_worker.systemd import Systemd

__all__ = ["Health"]

_log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0
STANDS_AFTER = 10.0
"""Seconds without a turn after which the event loop counts as standing still."""
DEAF_AFTER = 3
"""Looks in a row that must find a subscription dead, or room that is not offered: one may find it in between."""
STARTING = "the model is not loaded yet"
NO_BUS_YET = "the bus is not reached yet"
DRAINING = "it is told to stop, and finishes what it has in hand"


class Health:
    """A worker's health; `not_live` and `not_ready` may be asked from any thread."""

    def __init__(self, stuck_after: float, systemd: Systemd) -> None:
        """Args: stuck_after is STUCK_AFTER: half of it is too long for who asks whether to send us work."""
        self._patience = stuck_after / 2
        self._systemd = systemd
        self._turned = time.monotonic()
        self._looks: list[Callable[[], str | None]] = []
        self._starting = STARTING
        self._reasons = [STARTING]
        self._said_ready = False
        self._draining = False
        self._pulse: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look from now on."""
        self._pulse = asyncio.create_task(self._beat(), name="health")

    async def stop(self) -> None:
        """Look no more."""
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.wait({self._pulse})

    def model_loaded(self) -> None:
        """Only the bus is waited for now."""
        self._starting = NO_BUS_YET
        self._look()

    def watch(self, bus: Bus, service: Service) -> None:
        """These are what it serves with: from now on it may be ready."""
        deaf = 0

        def hears() -> str | None:
            nonlocal deaf
            deaf = deaf + 1 if bus.connected and (bus.deaf() or service.credits.withheld) else 0
            return "a subscription has died" if deaf >= DEAF_AFTER else None

        def bus_answers() -> str | None:
            if not bus.connected:
                return "the bus is away"
            silent = bus.silent_for()
            if silent > SILENT_AFTER:
                return f"the bus has not answered for {silent:.0f} s"
            return bus.unheard()

        def works() -> str | None:
            stuck = service.stuck_for()
            return f"a thread is stuck for {stuck:.0f} s" if stuck > self._patience else None

        self._looks = [bus_answers, hears, works]
        self._said_ready = True  # the process itself says so
        self._look()
        self._systemd.ready()

    def drain(self) -> None:
        """It was told to stop."""
        self._draining = True
        self._systemd.stopping()
        self._look()

    def not_live(self) -> list[str]:
        """Why it should be killed."""
        still = time.monotonic() - self._turned
        return [f"the event loop stands still for {still:.0f} s"] if still > STANDS_AFTER else []

    def not_ready(self) -> list[str]:
        """Why no work should be sent to it."""
        return [*self.not_live(), *self._reasons]

    async def _beat(self) -> None:
        while True:
            self._turned = time.monotonic()
            self._look()
            self._systemd.alive()
            await asyncio.sleep(min(LOOK_EVERY, self._systemd.every))

    def _look(self) -> None:
        """See what stands in the way; say so when it changes between something and nothing."""
        looked = [why for look in self._looks if (why := look())]
        found = looked if self._looks else [self._starting]
        self._reasons = [DRAINING, *found] if self._draining else found
        ready = not self._reasons
        self._systemd.status("ready" if ready else "; ".join(self._reasons))
        if not self._looks or self._draining or ready == self._said_ready:
            return
        if ready:
            _log.info("ready_again")
        else:
            _log.warning("not_ready", reasons=self._reasons)
        self._said_ready = ready
