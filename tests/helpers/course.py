"""A job's course: workers that are killed in the middle of it, and what is left on the bus behind it."""

import asyncio
from typing import Any

from nats.aio.client import Client
from nats.errors import ConnectionClosedError

from bus_worker.jetstream import JetStream
from bus_worker.job_record import JobEvent, JobRecord
from bus_worker.jobs import JobWorker
from bus_worker.messages import unpack
from bus_worker.service import Service
from bus_worker.subjects import PRIORITIES
from tests.helpers.house import NAMES

__all__ = ["Doomed", "audio_left", "events_of", "idle", "kept_of", "queued_in"]


class Doomed:
    """A worker that dies right behind its n-th write; of that one it hears no answer."""

    def __init__(self, service: Service, jobs: JobWorker, after: int) -> None:
        self.dead = asyncio.Event()
        self.wrote: list[str] = []
        self._service = service
        self._jobs = jobs
        self._after = after
        self._client: Any = service._bus.client
        self._gone = asyncio.Event()
        self._publish = self._client.publish
        self._client.publish = self.publish

    async def publish(self, subject: str, *args: Any, **more: Any) -> None:
        if not self.dead.is_set():
            await self._publish(subject, *args, **more)
            if not subject.startswith(("stt.", "$JS.ACK.STT_JOBS", "$JS.ACK.STT_WINDOWS")):
                return
            if subject.startswith("$JS.ACK") and args and bytes(args[0]) == b"+WPI":
                return
            self.wrote.append(subject)
            if len(self.wrote) < self._after:
                return
            await self._client._flush_pending()
            self.dead.set()
        await self._gone.wait()
        raise ConnectionClosedError

    async def bury(self) -> None:
        """Its connection is gone, and so is all that it was at."""
        await self._client.close()
        self._gone.set()
        await self._jobs.lanes.stop()
        for task in list(self._service.credits._in_hand):
            task.cancel()
            await asyncio.wait({task})


async def queued_in(nc: Client, stream: str, model: str = "pretend") -> int:
    """Messages of a model that wait in a queue, or are in hand."""
    js, found = nc.jetstream(), 0
    for priority in PRIORITIES:
        info = await js.consumer_info(stream, NAMES.queue(model, priority))
        found += (info.num_pending or 0) + (info.num_ack_pending or 0)
    return found


async def idle(nc: Client, model: str = "pretend", limit: float = 30.0) -> None:
    """Wait until no job and no window of a model is left."""
    async with asyncio.timeout(limit):
        while (  # noqa: ASYNC110 - the server tells nobody
            await queued_in(nc, "STT_JOBS", model) + await queued_in(nc, "STT_WINDOWS", model)
        ):
            await asyncio.sleep(0.02)


async def events_of(nc: Client, job_id: str) -> list[JobEvent]:
    """All that was told of a job, what came behind its end too."""
    js, found, after = JetStream(nc), list[JobEvent](), 0
    while kept := await js.following(NAMES.events_stream, NAMES.events(job_id), after + 1):
        after = kept.sequence
        if kept.data:
            found.append(JobEvent.from_map(after, unpack(kept.data)))
    return found


async def kept_of(nc: Client, job_id: str, but: tuple[str, ...] = ()) -> set[str]:
    """The parts of what is known of a job, but for those that begin so."""
    js = nc.jetstream()
    info = await js.stream_info("STT_STATE", subjects_filter=f"stt.state.{job_id}.>")
    found = set()
    for subject in info.state.subjects or {}:
        kept = await JetStream(nc).last("STT_STATE", subject)
        if kept is not None and kept.data:
            found.add(subject.rpartition(".")[2])
    return {part for part in found if not part.startswith(but)} if but else found


async def audio_left(nc: Client, record: JobRecord) -> bool:
    """Whether a job's audio lies on the bus still."""
    if record.claim is None:
        return False
    kept = await JetStream(nc).last("STT_CLAIMS", NAMES.claim(record.claim["id"], 0))
    return kept is not None and bool(kept.data)
