"""What a worker says of itself, held against ADR-32 as nats-py reads and speaks it."""

import asyncio
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats import micro
from nats.aio.client import Client
from nats.micro.service import (
    INFO_RESPONSE_TYPE,
    NAME_REGEX,
    PING_RESPONSE_TYPE,
    SEMVER_REGEX,
    STATS_RESPONSE_TYPE,
    SUBJECT_REGEX,
    ServiceInfo,
    ServicePing,
    ServiceStats,
)

from bus_worker import __version__, errors
from bus_worker.client import TranscribeClient
from tests.helpers.processes import Processes, ask_all, until_busy

READERS = {
    "PING": (ServicePing, PING_RESPONSE_TYPE),
    "INFO": (ServiceInfo, INFO_RESPONSE_TYPE),
    "STATS": (ServiceStats, STATS_RESPONSE_TYPE),
}


def shape(value: Any) -> Any:
    """The fields of an answer and the types of their values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def without(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the parts whose fields are each service's own."""
    endpoints = [
        {k: v for k, v in endpoint.items() if k != "data"}
        for endpoint in answer.get("endpoints", [])
    ]
    kept = {k: v for k, v in answer.items() if k not in {"metadata", "endpoints"}}
    return {**kept, "endpoints": endpoints}


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
async def test_an_answer_has_the_fields_and_types_of_nats_pys_own_service(
    processes: Processes, nc: Client, verb: str
):
    (worker,) = await processes.start()
    stock = await micro.add_service(
        nc, name="stt", version="1.0.0", description="The stock one", metadata={"model": "none"}
    )

    async def echo(request: micro.Request) -> None:
        await request.respond(request.data)

    await stock.add_endpoint(
        name="transcribe", subject="stock.transcribe", handler=echo, metadata={}
    )
    answers = {answer["id"]: answer for answer in await ask_all(nc, verb)}
    ours, theirs = answers.pop(worker.worker_id), answers.popitem()[1]
    await stock.stop()
    assert shape(without(ours)) == shape(without(theirs))
    reader, kind = READERS[verb]
    again = reader.from_dict(ours).to_dict()
    if verb == "STATS":  # which it writes with fewer decimals
        assert again.pop("started")[:19] == ours["started"][:19]
    assert again.items() <= ours.items()
    assert ours.keys() - again.keys() <= {"started"}
    assert ours["type"] == kind
    assert (ours["name"], ours["version"]) == ("stt", __version__)
    assert NAME_REGEX.match(ours["name"])
    assert NAME_REGEX.match(ours["id"])
    assert SEMVER_REGEX.match(ours["version"])
    assert ours["metadata"]["model"] == "pretend"
    assert all(isinstance(value, str) for value in ours["metadata"].values())
    for endpoint in ours.get("endpoints", []):
        assert NAME_REGEX.match(endpoint["name"])
        assert SUBJECT_REGEX.match(endpoint["subject"])
        assert endpoint["subject"] == "stt.v1.transcribe.pretend"
        assert endpoint["queue_group"] == "stt-workers"


async def test_figures_count_what_was_served_and_what_failed(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    before = datetime.now(UTC) - timedelta(seconds=1)
    await processes.start(WORKER_SLOTS="3")
    for _ in range(3):
        await caller.transcribe(b"x")
    with pytest.raises(errors.BadRequest):
        await caller.transcribe(b"x", language="English")
    running = asyncio.create_task(caller.transcribe(b"x", stages={"pretend": {"seconds": 0.5}}))
    await until_busy(nc)
    (answer,) = await ask_all(nc, "STATS", wait=0.1)
    (endpoint,) = answer["endpoints"]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (4, 1)
    assert endpoint["last_error"] == "400:bad_request"
    assert endpoint["processing_time"] > 3 * 100_000_000  # nanoseconds
    assert endpoint["average_processing_time"] == endpoint["processing_time"] // 4
    assert endpoint["data"]["slots"] == 3
    assert endpoint["data"]["in_flight"] == 1
    assert endpoint["data"]["answers"] == {"ok": 3, "bad_request": 1}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", answer["started"])
    assert before < datetime.fromisoformat(answer["started"]) < datetime.now(UTC)
    await running


async def test_each_verb_answers_to_everyone_to_the_service_and_to_the_worker(
    processes: Processes, nc: Client
):
    (worker,) = await processes.start()
    for verb in READERS:
        for tail in ("", ".stt", f".stt.{worker.worker_id}"):
            reply = await nc.request(f"$SRV.{verb}{tail}", timeout=20)
            assert worker.worker_id in reply.data.decode()


async def test_a_worker_that_leaves_is_not_counted_on(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    stays, leaves = await processes.start(2)
    assert {w.id for w in await caller.workers()} == {stays.worker_id, leaves.worker_id}
    leaves.signal(signal.SIGTERM)
    assert await leaves.left() == 0
    assert [answer["id"] for answer in await ask_all(nc, "PING")] == [stays.worker_id]
