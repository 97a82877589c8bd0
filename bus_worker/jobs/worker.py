"""The jobs' side of a worker: fetches what waits into free slots, and sees it through."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.credits import Credits
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Cancelled,
    JobNotFound,
    Stopping,
    Unavailable,
)
from bus_worker.jobs.attempt import Attempt
from bus_worker.jobs.hearing import take_window
from bus_worker.jobs.means import Means
from bus_worker.jobs.taking import id_of, take_job
from bus_worker.jobs.telling import WebhookLine
from bus_worker.lanes import Lanes
from bus_worker.messages import unpack_hostile
from bus_worker.pulls import Held, Pulls, WorkQueue
from bus_worker.results import Unreadable
from bus_worker.streams import ACK_WAIT, check_queues
from bus_worker.subjects import PRIORITIES, Priority

__all__ = ["JobWorker"]

_log = structlog.get_logger(__name__)

LOOK_AGAIN = 15.0
"""Seconds between two looks for queues that are not there, or not as they must be."""
MAX_CONTROL = 1024
"""Bytes of a control message."""


class JobWorker:
    """Takes jobs and windows of one model."""

    def __init__(
        self,
        means: Means,
        credits: Credits,  # noqa: A002 - the room's word
        *,
        somebody_waits: Callable[[], bool],
        most: int | None = None,
    ) -> None:
        """Args: somebody_waits and most, see `Lanes`."""
        self._means = means
        self._credits = credits
        self._model = means.transcriber.model.name
        self._pulls = Pulls(means.bus, ACK_WAIT)
        self._webhooks = WebhookLine(means, ACK_WAIT)
        self._in_hand: set[Attempt] = set()
        self._subs: list[Subscription] = []
        self._starting: asyncio.Task[None] | None = None
        self._started = False
        self.lanes = Lanes(
            credits,
            self._pulls,
            [self._queues(priority) for priority in PRIORITIES],
            self._take,
            somebody_waits=somebody_waits,
            most=most,
        )
        credits.on_room.append(self.lanes.wake)

    def _queues(self, priority: Priority) -> list[WorkQueue]:
        """What is begun goes before what is not: a file's windows before the next file."""
        names = self._means.names
        consumer = names.queue(self._model, priority)
        return [
            WorkQueue(names.windows_stream, consumer),
            WorkQueue(names.jobs_stream, consumer),
        ]

    async def start(self) -> None:
        """Begin as soon as the queues are there, which is a moment on a bus that `setup` was run on."""
        subscribe = self._means.bus.client.subscribe
        self._subs.append(await subscribe(self._means.names.cancel, cb=self._on_cancel))
        why = await self._unfit()
        if why is None:
            await self._begin()
            return
        _log.warning("no_jobs", why=why)
        self._starting = asyncio.create_task(self._begin_later(), name="jobs-start")

    async def stop_taking(self) -> None:
        """Fetch nothing more; a recording that is being opened is left to another worker."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self._started:
            await self.lanes.stop()
            self.give_up(opening=True)
            await self._webhooks.stop()
            await self._pulls.stop()
        await self._means.bus.unsubscribe(self._subs)

    def give_up(self, *, opening: bool = False) -> None:
        """Leave what is in hand to another worker, now; or only the recordings that are being opened."""
        for attempt in list(self._in_hand):
            if attempt.opening or not opening:
                attempt.give_up(Stopping())

    async def _begin(self) -> None:
        await self._pulls.start()
        try:
            await self._webhooks.start()
        except Exception:
            await self._pulls.stop()  # as if it was never begun: it may be begun again
            raise
        self.lanes.start()
        self._started = True

    async def _begin_later(self) -> None:
        while not self._started:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                if await self._unfit() is None:
                    await self._begin()
                    _log.info("jobs_taken_now")
            except Exception:  # noqa: BLE001 - whatever it was, jobs may be taken the next time
                _log.exception("no_jobs")

    async def _unfit(self) -> str | None:
        try:
            return await check_queues(self._means.results.js, self._means.names, self._model)
        except Unavailable as exc:
            return exc.message

    async def _take(self, held: Held) -> None:
        """See one message through; whatever happens, it is ended, given back, or comes again by itself."""
        names = self._means.names
        attempt = Attempt(held, id_of(held))
        take = take_window if held.queue.stream == names.windows_stream else take_job
        self._in_hand.add(attempt)
        if held.delivered > 1:
            self._means.line.metrics.came_again()
        with structlog.contextvars.bound_contextvars(job_id=attempt.job_id):
            try:
                async with held.kept_alive():
                    await take(self._means, attempt)
            except JobNotFound:  # erased meanwhile: nobody wants it
                await held.done()
            except Unreadable as exc:  # and so for whoever has it next: else it came again for ever
                _log.error("job_buried", why=exc.message)
                await held.buried()
            except BusWorkerError as exc:
                # The bus was away too long to write anything down: then it comes again.
                _log.warning("job_left", why=exc.message)
            except Exception:  # noqa: BLE001 - one job must not end the worker
                _log.exception("job_left")
            finally:
                self._in_hand.discard(attempt)
                attempt.give_up(Cancelled())
                self._credits.told()
                await attempt.settled()

    async def _on_cancel(self, msg: Msg) -> None:
        try:
            job_id = str(unpack_hostile(msg.data, MAX_CONTROL)["job_id"])
        except (BadRequest, KeyError):  # a request's cancellation is not ours
            return
        mine = [attempt for attempt in self._in_hand if attempt.job_id == job_id]
        if mine and await self._is_over(job_id):
            for attempt in mine:
                attempt.give_up(Cancelled())

    async def _is_over(self, job_id: str) -> bool:
        """Whether a job was cancelled indeed: anybody may say so, its record is believed."""
        with contextlib.suppress(BusWorkerError):
            known = await self._means.results.known(job_id)
            return known is None or known.record.final
        return False
