"""The streams that the bus keeps for us: made by `setup`, which is an admin's; workers only check them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from bus_worker.bus import Forbidden
from bus_worker.errors import SetupError
from bus_worker.hardened import Refused
from bus_worker.jetstream import JetStream, NoStream
from bus_worker.subjects import PRIORITIES, Subjects

__all__ = ["ACK_WAIT", "WEBHOOK_WORKERS", "check_queues", "make_streams"]

DAY = 86_400.0
MAX_CHUNK = 1 << 20
ACK_WAIT = 10.0
"""Seconds of silence after which what a worker had in hand goes to another."""
MAX_IN_HAND = 1000
"""Messages of one queue that all workers together may have in hand."""
MAX_PULLS = 2048
"""Questions for work that may wait at one queue; a withdrawn one stays for two seconds."""
WEBHOOK_WORKERS = "workers"
LEAST = 16 << 20
"""Bytes below which a stream is of no use."""
NO_ROOM = 10047
NO_JETSTREAM = frozenset({None, 10039, 10076})
"""Errors of a server without it: nobody answers, not for this account, switched off."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """A stream as it must be (`needed`), and the bounds that an admin may choose otherwise."""

    name: str
    subjects: list[str]
    keeps: str
    max_bytes: int
    needed: dict[str, Any]
    bounds: dict[str, Any] = field(default_factory=dict)


def _plans(names: Subjects) -> list[_Plan]:
    """Every stream.

    Where live work lies, full refuses the sender and never pushes out what is there.
    """
    prefix = names.prefix
    queue = {
        "retention": RetentionPolicy.WORK_QUEUE, "discard": DiscardPolicy.NEW,
        "duplicate_window": 600.0,
    }  # fmt: skip
    return [
        _Plan(
            names.claims_stream, [names.claims], "audio too large for a message", 4 << 30,
            # One message a subject, so that a chunk is erased by writing over it.
            {"discard": DiscardPolicy.NEW, "max_msgs_per_subject": 1, "max_msg_size": MAX_CHUNK,
             "allow_direct": True, "allow_msg_ttl": True},
            {"max_age": 7 * DAY},
        ),
        _Plan(
            names.jobs_stream, [f"{prefix}.jobs.*.*"], "jobs that wait", 1 << 30,
            queue, {"max_msgs": 10_000},
        ),
        _Plan(
            names.windows_stream, [f"{prefix}.windows.*.*"], "windows of long recordings", 1 << 30,
            queue,
        ),
        _Plan(
            names.webhooks_stream, [names.webhooks], "webhooks to be told", 64 << 20,
            queue,
        ),
        _Plan(
            names.state_stream, [f"{prefix}.state.*.*"], "jobs' status and transcripts", 1 << 30,
            {"discard": DiscardPolicy.NEW, "max_msgs_per_subject": 1,
             "allow_direct": True, "allow_msg_ttl": True},
            {"max_age": 7 * DAY},
        ),
        _Plan(
            names.events_stream, [f"{prefix}.events.*"], "jobs' events", 512 << 20,
            # An event told again by a second worker is told once; a rollup erases a job's.
            {"discard": DiscardPolicy.OLD, "allow_direct": True, "duplicate_window": 3600.0,
             "allow_rollup_hdrs": True, "allow_msg_ttl": True},
            {"max_age": DAY},
        ),
        _Plan(
            names.dead_stream, [f"{prefix}.dead.*"], "jobs that failed", 256 << 20,
            {"discard": DiscardPolicy.OLD, "max_msgs_per_subject": 1, "allow_direct": True,
             "allow_msg_ttl": True},
            {"max_age": 7 * DAY},
        ),
    ]  # fmt: skip


async def make_streams(
    nc: Client, names: Subjects, *models: str, replicas: int | None = None
) -> list[tuple[str, str]]:
    """Make the streams and the queues of these models, or put right what is wrong with them.

    What an admin may well have chosen (bytes, age, replicas, placement) stays as it is.

    Args:
        replicas: on how many servers of a cluster each lies; None: as it is, and on one if it is new.

    Returns:
        Each stream's name and what it keeps.

    Raises:
        SetupError: the bus has no JetStream, or refuses; says what to do.
        Forbidden: this user is no admin.
    """
    js = nc.jetstream()
    name = names.claims_stream
    wanted = {"num_replicas": replicas} if replicas else {}
    plans = [replace(plan, needed={**plan.needed, **wanted}) for plan in _plans(names)]
    try:
        await _make_all(js, plans)
        for name, queue in _queues(names, *models):
            await js.add_consumer(name, queue)
    except js_errors.APIError as exc:
        if exc.err_code in NO_JETSTREAM:
            raise SetupError(
                "the bus keeps no large audio and no jobs: enable jetstream on nats-server"
            ) from exc
        raise _refused(name, exc) from exc
    except Refused as exc:
        raise Forbidden(f"{exc}; `bus-worker setup` is an admin's") from exc
    except (nats_errors.Error, TimeoutError, OSError) as exc:
        raise SetupError(
            f"the bus did not answer about stream {name}; do most servers of its cluster run by now?"
        ) from exc
    return [(plan.name, plan.keeps) for plan in plans]


async def check_queues(js: JetStream, names: Subjects, model: str) -> str | None:
    """What keeps a worker from taking jobs, as one sentence; None where nothing does.

    Raises:
        Unavailable: the bus did not answer.
    """
    for stream, queue in _queues(names, model):
        name = queue.durable_name
        try:
            said = await js.api(f"CONSUMER.INFO.{stream}.{name}")
        except NoStream:
            return "the bus keeps no jobs: enable jetstream on nats-server"
        if "error" in said:
            return f"stream {stream} has no consumer {name}: run `bus-worker setup`"
        for key, wanted in _checked(queue):
            found = said["config"].get(key)
            if found != wanted:
                return (
                    f"consumer {name} of stream {stream} has {key} {json.dumps(found)} where"
                    f" {json.dumps(wanted)} is needed: run `bus-worker setup`"
                )
    return None


def _checked(queue: ConsumerConfig) -> Iterator[tuple[str, Any]]:
    """What of a consumer's configuration decides how work is handed out, as the server writes it."""
    yield "filter_subject", queue.filter_subject
    yield "ack_policy", "explicit"
    yield "ack_wait", int(ACK_WAIT * 1e9)
    yield "max_deliver", -1


def _queues(names: Subjects, *models: str) -> Iterator[tuple[str, ConsumerConfig]]:
    """Every consumer by its stream: one a priority, as one over both would be first come, first served."""
    for model, priority in product(models, PRIORITIES):
        name = names.queue(model, priority)
        yield names.jobs_stream, _queue(name, names.jobs(model, priority))
        yield names.windows_stream, _queue(name, names.windows(model, priority))
    yield names.webhooks_stream, _queue(WEBHOOK_WORKERS, names.webhooks)


def _queue(name: str, subject: str) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=name,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,  # a drain or a lost race hands a job back too, and must not bury it
        max_ack_pending=MAX_IN_HAND,
        max_waiting=MAX_PULLS,
    )


def _refused(name: str, exc: js_errors.APIError) -> SetupError:
    return SetupError(f"the bus refuses stream {name}: {exc.description}")


async def _make_all(js: JetStreamContext, plans: list[_Plan]) -> None:
    """Make the streams as large as planned, or all of them smaller: the server sets the bytes aside."""
    fresh: set[str] = set()
    halved = 0
    while True:
        try:
            for plan in plans:
                await _make(js, plan, max(LEAST, plan.max_bytes >> halved), fresh)
        except js_errors.APIError as exc:
            if exc.err_code in NO_JETSTREAM:
                raise
            if exc.err_code != NO_ROOM or all(p.max_bytes >> halved <= LEAST for p in plans):
                raise _refused(plan.name, exc) from exc
            halved += 1
        else:
            return


async def _make(js: JetStreamContext, plan: _Plan, size: int, fresh: set[str]) -> None:
    """Make a stream, or put it right; those that were made just now (`fresh`) may shrink again."""
    try:
        there = (await js.stream_info(plan.name)).config
    except js_errors.NotFoundError:
        await _add(js, plan, size)
        fresh.add(plan.name)
        return
    if there.subjects != plan.subjects:
        raise SetupError(
            f"stream {plan.name} is there for {', '.join(there.subjects or ['nothing'])}:"
            " remove it, or choose another SUBJECT_PREFIX"
        )
    bounds = {key: getattr(there, key) or value for key, value in plan.bounds.items()}
    if (there.max_bytes or -1) < 0 or plan.name in fresh:
        bounds["max_bytes"] = size
    await js.update_stream(there, **plan.needed, **bounds)


async def _add(js: JetStreamContext, plan: _Plan, size: int) -> None:
    await js.add_stream(
        StreamConfig(
            name=plan.name,
            subjects=plan.subjects,
            description=plan.keeps[:1].upper() + plan.keeps[1:],
            storage=StorageType.FILE,
            max_bytes=size,
        ),
        **plan.needed,
        **plan.bounds,
    )
