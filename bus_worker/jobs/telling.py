"""A job's end, told to whom the job names: a subject of the bus, a webhook."""

import asyncio
import json
import time
from typing import Any

import structlog
from nats import errors as nats_errors

from bus_worker import subjects
from bus_worker.bus import bus_errors
from bus_worker.errors import BadRequest, BusWorkerError, Cancelled, JobNotFound, TooLarge
from bus_worker.job_record import JobRecord
from bus_worker.jobs.means import Means
from bus_worker.messages import error_to_map, pack, unpack
from bus_worker.pulls import Held, Pulls, WorkQueue
from bus_worker.results import Unreadable
from bus_worker.streams import WEBHOOK_WORKERS
from bus_worker.webhook import NotDelivered, Webhooks, retry_after

__all__ = ["WebhookLine", "tell_caller"]

_log = structlog.get_logger(__name__)

AT_ONCE = 4
"""Webhooks that one worker tells side by side; most of the time is waiting for the other side."""


async def tell_caller(means: Means, record: JobRecord) -> None:
    """Tell a final record where the job asks for it; webhooks are queued, once."""
    if record.webhook is not None:
        names = means.names
        told = pack(
            {
                "job_id": record.job_id,
                "url": record.webhook,
                "kind": record.status,
                "traceparent": record.traceparent,
            }
        )
        once = {"Nats-Msg-Id": f"{record.job_id}.{record.sequence}.webhook"}
        await means.results.js.write(names.webhooks_stream, names.webhooks, told, once)
    if record.reply_to is not None and means.names.may_tell(record.reply_to):
        await _reply(means, record, record.reply_to)


async def _reply(means: Means, record: JobRecord, subject: str) -> None:
    """The transcript or the error, as a reply to a request would be."""
    headers = {
        subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE,
        subjects.HEADER_JOB_ID: record.job_id,
        subjects.HEADER_REQUEST_ID: record.request_id,
    }
    said = await outcome(means, record)
    try:
        with bus_errors():
            await means.bus.client.publish(subject, pack(said), headers=headers)
    except TooLarge:
        much = TooLarge("the transcript is larger than a message; fetch it by the job's id")
        with bus_errors():
            await means.bus.client.publish(subject, pack(error_to_map(much)), headers=headers)


async def outcome(means: Means, record: JobRecord) -> dict[str, Any]:
    """The transcript of a job that is done, else an `error`; as plain maps."""
    if record.status == "done":
        return await means.results.transcript(record)
    if record.status == "cancelled":
        return error_to_map(Cancelled("the job was cancelled"))
    return {"error": record.error}


class WebhookLine:
    """Tells webhooks what is in their queue; needs no slot."""

    def __init__(self, means: Means, ack_wait: float) -> None:
        self._means = means
        self._queue = WorkQueue(means.names.webhooks_stream, WEBHOOK_WORKERS)
        self._pulls = Pulls(means.bus, ack_wait)
        self._webhooks = Webhooks(means.rules)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tell from now on."""
        await self._pulls.start()
        self._running = asyncio.create_task(self._run(), name="webhooks")

    async def stop(self) -> None:
        """Take no more; what is being told has seconds at most."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running, *self._tasks})
            await self._pulls.stop()
        self._webhooks.close()

    async def _run(self) -> None:
        while True:
            while len(self._tasks) >= AT_ONCE:
                await asyncio.wait(set(self._tasks), return_when=asyncio.FIRST_COMPLETED)
            held = await self._pulls.next([self._queue])
            if held is not None:
                task = asyncio.create_task(self._tell(held), name="webhook")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _tell(self, held: Held) -> None:
        count = self._means.line.metrics.webhook
        async with held.kept_alive():
            try:
                await self._deliver(held)
            except NotDelivered as exc:
                wait = retry_after(held.delivered, exc.asked) if exc.again else None
                if wait is None:
                    count("given_up")
                    _log.error("webhook_given_up", attempts=held.delivered, why=str(exc))
                    await held.buried()
                else:
                    count("retried")
                    await held.back(wait)
            except JobNotFound:  # erased, or kept long enough
                await held.done()
            except (BadRequest, Unreadable, ValueError, KeyError, TypeError):
                count("given_up")  # what it says is the same next time: else it came for ever
                _log.exception("webhook_buried")
                await held.buried()
            except (BusWorkerError, nats_errors.Error):
                _log.exception("webhook_not_told")  # it comes again
            else:
                count("told")
                await held.done()

    async def _deliver(self, held: Held) -> None:
        said = unpack(held.data)
        record = await self._means.results.record(said["job_id"])
        kind = f"job.{said['kind']}"
        body = {
            "type": kind,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.finished_at)),
            "data": {**record.shown().to_map(), **_result(await outcome(self._means, record))},
        }
        tracer = self._means.line.tracer
        span = tracer.start("webhook", said.get("traceparent"), kind="client")
        code = "not_delivered"
        try:
            await self._webhooks.deliver(
                said["url"], json.dumps(body, ensure_ascii=False).encode(),
                job_id=record.job_id, kind=str(said["kind"]), attempt=held.delivered,
            )  # fmt: skip
            code = "ok"
        finally:
            span.end(code)


def _result(outcome: dict[str, Any]) -> dict[str, Any]:
    return {} if "error" in outcome else {"result": outcome}
