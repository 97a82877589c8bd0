"""Jobs as their submitter sees them, on a real nats-server; what a worker would do is done by hand."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bus_worker.bus import Bus
from bus_worker.claim_check import ClaimCheck
from bus_worker.client import KEPT_FOR_JOBS, Job, TranscribeClient
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import (
    BadAudio,
    BadRequest,
    Busy,
    Cancelled,
    ClaimExpired,
    DeadlineExceeded,
    IdempotencyConflict,
    JobNotFound,
    ModelNotFound,
    TooLarge,
    Unavailable,
)
from bus_worker.job_record import JobRecord
from bus_worker.jobs.means import Limits
from bus_worker.messages import Segment, Ticket, error_to_map, unpack
from bus_worker.results import Results
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.house import Workers

NAMES = Subjects()
LARGE = os.urandom(1_500_000)
SEGMENT = Segment(0, 0, 0.0, 1.0, "one", [1], -0.1, 0.0, 1.0, 0.0)
TRANSCRIPT = {
    "request_id": "r", "text": "one two", "language": "en", "language_probability": 1.0, "duration": 2.0,
    "segments": [{**{f: getattr(SEGMENT, f) for f in SEGMENT.__slots__}, "id": n} for n in range(2)],
    "model": {"name": "pretend"}, "timings": {}, "real_time_factor": 0.1, "worker_id": "w",
}  # fmt: skip


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[TranscribeClient]:
    async with TranscribeClient(nc=bus.client, model="pretend") as client:
        yield client


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64_000):
        yield data[at : at + 64_000]


async def queued(bus: Bus) -> list[dict[str, Any]]:
    """The messages that wait, headers and all."""
    js = bus.client.jetstream()
    state = (await js.stream_info("STT_JOBS")).state
    if not state.messages:
        return []
    found = [
        await js.get_msg("STT_JOBS", seq) for seq in range(state.first_seq, state.last_seq + 1)
    ]
    return [{**unpack(m.data), "headers": m.headers, "subject": m.subject} for m in found]


async def left(bus: Bus) -> int:
    """Bytes of audio that lie on the bus; what is erased takes a little while each."""
    return (await bus.client.jetstream().stream_info("STT_CLAIMS")).state.bytes


async def end(results: Results, job: Job, status: str, **more: Any) -> None:
    known = await results.change(job.id, lambda was: replace(was, status=status, **more))
    await results.tell_end(known.record)


async def finish(results: Results, job: Job, **more: Any) -> None:
    word, parts = await results.keep_transcript(job.id, TRANSCRIPT)
    await end(results, job, "done", answer=word, parts=parts, progress=1.0, **more)


# --- handed in -----------------------------------------------------------------------------------


async def test_a_small_clip_travels_in_its_message(client: TranscribeClient, bus: Bus):
    job = await client.submit(
        b"audio", priority="high", language="en", request_id="r", reply_to="_INBOX.me", webhook="https://x"
    )  # fmt: skip
    (message,) = await queued(bus)
    assert (message["subject"], message["audio"]) == ("stt.jobs.pretend.high", b"audio")
    assert message["options"] == {"language": "en"}
    assert (message["reply_to"], message["webhook"]) == ("_INBOX.me", "https://x")
    assert (message["headers"]["Stt-Job-Id"], message["headers"]["Stt-Request-Id"]) == (job.id, "r")
    status = await job.status()
    assert (status.status, status.priority, status.model, status.request_id) == (
        "queued", "high", "pretend", "r",
    )  # fmt: skip
    assert status.created_at > 0


async def test_a_large_one_is_left_for_as_long_as_a_job_may_wait(
    client: TranscribeClient, bus: Bus
):
    await client.submit(pieces(LARGE))
    (message,) = await queued(bus)
    assert await ClaimCheck(bus.client, NAMES).fetch(Ticket(**message["claim"])) == LARGE
    kept = await bus.client.jetstream().get_msg("STT_CLAIMS", 1)
    assert float(kept.headers["Nats-TTL"].removesuffix("s")) == KEPT_FOR_JOBS


async def test_audio_that_was_left_before_is_the_jobs_from_then_on(
    client: TranscribeClient, bus: Bus
):
    async with client.leave(pieces(LARGE), kept=KEPT_FOR_JOBS) as audio:
        await client.submit(audio)
    (message,) = await queued(bus)
    assert await ClaimCheck(bus.client, NAMES).fetch(Ticket(**message["claim"])) == LARGE


async def test_audio_of_a_job_that_was_not_taken_is_erased(client: TranscribeClient, bus: Bus):
    js = bus.client.jetstream()
    await js.update_stream((await js.stream_info("STT_JOBS")).config, max_msgs=1)
    await client.submit(b"first")
    with pytest.raises(Busy, match="queue of jobs is full") as failed:
        await client.submit(LARGE)
    assert failed.value.retry
    async with asyncio.timeout(30):
        while await left(bus) > 10_000:  # noqa: ASYNC110 - it belongs to the server
            await asyncio.sleep(0.05)
    assert len(await queued(bus)) == 1


async def test_without_a_model_it_is_the_only_one(bus: Bus):
    async with TranscribeClient(nc=bus.client) as client:
        await client.submit(b"a")
        with pytest.raises(ModelNotFound, match=r"no queue of jobs for 'other'; .* pretend"):
            await client.submit(b"a", model="other")
        await make_streams(bus.client, NAMES, "tiny.en")
        await client.submit(b"a", model="tiny.en")  # seen though it came later
        with pytest.raises(BadRequest, match="name one of pretend, tiny_en"):
            await client.submit(b"a")
    assert [m["subject"] for m in await queued(bus)] == [
        "stt.jobs.pretend.low", "stt.jobs.tiny_en.low",
    ]  # fmt: skip


async def test_consumers_of_an_admins_own_are_no_models(bus: Bus):
    await bus.client.jetstream().add_consumer(
        "STT_JOBS", durable_name="look-here", ack_policy="explicit", filter_subject="stt.jobs.x.y"
    )
    async with TranscribeClient(nc=bus.client) as client:
        await client.submit(b"a")
    assert len(await queued(bus)) == 1


async def test_options_too_large_for_a_message_are_said(client: TranscribeClient):
    with pytest.raises(TooLarge, match="beside the audio"):
        await client.submit(b"a", prompt="x" * 9_000_000)


async def test_a_bus_that_keeps_no_jobs_says_what_to_do():
    async with (
        nats_server(jetstream=False) as without,
        nats_server() as bare,
        TranscribeClient(without.url) as one,
        TranscribeClient(bare.url) as other,
    ):
        for client in (one, other):
            with pytest.raises(Unavailable) as failed:
                await client.submit(b"a")
            assert failed.value.message == (
                "the bus keeps no jobs: enable jetstream on nats-server and run `bus-worker setup`"
            )
        with pytest.raises(Unavailable, match="enable jetstream"):
            await one.job("x").status()


# --- the same again ------------------------------------------------------------------------------


async def test_the_same_under_one_key_is_the_same_job(client: TranscribeClient, bus: Bus):
    jobs = [await client.submit(LARGE, idempotency_key="k", language="en") for _ in range(2)]
    assert jobs[0].id == jobs[1].id == hashlib.sha256(b"k").hexdigest()[:32]
    (message,) = await queued(bus)
    assert await ClaimCheck(bus.client, NAMES).fetch(Ticket(**message["claim"])) == LARGE
    async with asyncio.timeout(30):
        while await left(bus) > 1_600_000:  # noqa: ASYNC110 - the second one's audio goes
            await asyncio.sleep(0.05)


async def test_something_else_under_that_key_is_refused(client: TranscribeClient, bus: Bus):
    await make_streams(bus.client, NAMES, "tiny.en")
    asked = {"audio": b"audio", "language": "en", "idempotency_key": "k"}
    await client.submit(**asked)
    for other in (
        {"audio": b"else"}, {"language": "de"}, {"model": "tiny.en"}, {"webhook": "https://x"},
    ):  # fmt: skip
        with pytest.raises(IdempotencyConflict):
            await client.submit(**{**asked, **other})
    assert len(await queued(bus)) == 1


@pytest.mark.parametrize("audio", [b"small", LARGE], ids=["small", "large"])
async def test_twenty_at_once_under_one_key_are_one_job(
    client: TranscribeClient, bus: Bus, audio: bytes, results: Results
):
    jobs = await asyncio.gather(*(client.submit(audio, idempotency_key="k") for _ in range(20)))
    assert len({job.id for job in jobs}) == 1
    (message,) = await queued(bus)
    claim = message.get("claim")
    assert (await results.record(jobs[0].id)).claim == claim
    if claim is not None:
        assert await ClaimCheck(bus.client, NAMES).fetch(Ticket(**claim)) == audio
        async with asyncio.timeout(30):
            while await left(bus) > 1_600_000:  # noqa: ASYNC110 - the audio of the nineteen goes
                await asyncio.sleep(0.05)


async def test_different_clips_at_once_under_one_key_are_one_job_and_refusals(
    client: TranscribeClient, bus: Bus, results: Results
):
    said = await asyncio.gather(
        *(client.submit(bytes([n]), idempotency_key="k") for n in range(20)), return_exceptions=True
    )
    (number,) = (n for n, what in enumerate(said) if isinstance(what, Job))
    assert sum(isinstance(what, IdempotencyConflict) for what in said) == 19
    (message,) = await queued(bus)
    assert message["audio"] == bytes([number])


async def test_an_erased_jobs_key_is_free_for_another(client: TranscribeClient, bus: Bus):
    job = await client.submit(b"one", idempotency_key="k")
    await job.erase()
    again = await client.submit(b"two", idempotency_key="k")
    assert again.id == job.id
    assert (await again.status()).status == "queued"
    assert [m["audio"] for m in await queued(bus)] == [b"one", b"two"]


async def test_of_an_erased_job_and_its_namesake_only_the_namesake_runs(
    workers: Workers, client: TranscribeClient, bus: Bus
):
    await (await client.submit(b"one", idempotency_key="k")).erase()
    other = await client.submit(b"erased")
    await other.erase()
    job = await client.submit(b"other", idempotency_key="k")
    await workers.start(seconds=0, jobs=Limits())
    assert (await job.result(timeout=30)).text == "5 bytes"
    assert (await job.status()).attempts == 1
    async with asyncio.timeout(30):
        while (await bus.client.jetstream().stream_info("STT_JOBS")).state.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    with pytest.raises(JobNotFound):
        await other.status()


async def test_a_worker_that_was_quicker_than_the_record_is_no_trouble(
    client: TranscribeClient, results: Results, monkeypatch: pytest.MonkeyPatch
):
    create = Results.create

    async def slower(self: Results, record: JobRecord, erased: None = None) -> None:
        running = replace(record, status="running", fingerprint="", worker_id="w", attempts=1)
        await create(self, running)
        return await create(self, record, erased)

    monkeypatch.setattr(Results, "create", slower)
    job = await client.submit(b"a", idempotency_key="k")
    record = await results.record(job.id)
    assert (record.status, record.worker_id) == ("running", "w")
    assert record.fingerprint
    with pytest.raises(IdempotencyConflict):
        await client.submit(b"b", idempotency_key="k")


# --- its end -------------------------------------------------------------------------------------


async def test_the_result_is_waited_for_and_fetched_by_anybody(
    client: TranscribeClient, results: Results
):
    job = await client.submit(b"a")
    with pytest.raises(Busy, match="the job is queued"):
        await job.transcript()
    with pytest.raises(DeadlineExceeded, match="it goes on"):
        await job.result(timeout=0.1)
    waiting = asyncio.create_task(client.job(job.id).result(timeout=30))
    await finish(results, job)
    assert (await waiting).text == "one two"
    assert (await job.transcript()).text == "one two"


async def test_a_failed_jobs_result_is_its_error(client: TranscribeClient, results: Results):
    job = await client.submit(b"a")
    await end(results, job, "failed", error=error_to_map(BadAudio("noise"))["error"])
    for asked in (job.result(), job.transcript(), anext(job.segments())):
        with pytest.raises(BadAudio, match="noise"):
            await asked


async def test_segments_come_in_order_though_windows_do_not(
    client: TranscribeClient, results: Results
):
    job = await client.submit(b"a")
    known = await results.change(job.id, lambda was: replace(was, status="running", windows=3))
    for window in (2, 0, 1):
        segment = replace(SEGMENT, text=f"of {window}")
        await results.tell(known.record, f"w{window}", window=window, segments=[segment] * 2)
    await finish(results, job)
    found = [(s.id, s.text) async for s in job.segments()]
    assert found == [(n, f"of {n // 2}") for n in range(6)]


async def test_segments_of_events_that_are_gone_come_from_the_transcript(
    client: TranscribeClient, results: Results, bus: Bus
):
    job = await client.submit(b"a")
    known = await results.change(job.id, lambda was: replace(was, status="running", windows=2))
    await results.tell(known.record, "w1", window=1, segments=[SEGMENT])
    await finish(results, job)
    assert [s.id async for s in job.segments()] == [0, 1]
    await bus.client.jetstream().purge_stream("STT_EVENTS")
    assert [s.id async for s in job.segments()] == [0, 1]


async def test_a_cancelled_job_says_so_and_its_audio_is_gone(
    client: TranscribeClient, bus: Bus, results: Results
):
    job = await client.submit(LARGE)
    (message,) = await queued(bus)
    hints: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(msg: Any) -> None:
        hints.put_nowait(msg.data)

    await bus.client.subscribe(NAMES.cancel, cb=hear)
    assert (await job.cancel()).status == "cancelled"
    async with asyncio.timeout(30):
        assert unpack(await hints.get()) == {"job_id": job.id}
    for asked in (job.result(), job.transcript(), anext(job.segments())):
        with pytest.raises(Cancelled):
            await asked
    await bus.confirmed()
    with pytest.raises(ClaimExpired):
        await ClaimCheck(bus.client, NAMES).fetch(Ticket(**message["claim"]))
    assert (await job.cancel()).status == "cancelled"


async def test_a_finished_job_cannot_be_cancelled(client: TranscribeClient, results: Results):
    job = await client.submit(b"a")
    await finish(results, job)
    assert (await job.cancel()).status == "done"
    assert (await job.result()).text == "one two"


async def test_an_erased_job_is_not_found_by_any_question(
    client: TranscribeClient, results: Results
):
    job = await client.submit(b"a")
    await job.erase()  # which cancels it
    assert (await results.known(job.id)).record.final
    for asked in (job.status, job.result, job.transcript, job.cancel, job.erase):
        with pytest.raises(JobNotFound):
            await asked()


async def test_a_strange_id_is_refused(client: TranscribeClient):
    for job_id in ("", "*", "a.>", "a b", "x" * 65):
        with pytest.raises(BadRequest, match="a job's id"):
            client.job(job_id)


async def test_a_client_that_is_not_open_says_so():
    with pytest.raises(Unavailable, match="not open"):
        TranscribeClient().job("x")


async def test_a_job_is_handed_in_over_a_restart_of_the_server(
    client: TranscribeClient, bus: Bus, bus_server: NatsServer
):
    await client.submit(b"one")
    await bus_server.stop()
    handing_in = asyncio.create_task(client.submit(b"two", idempotency_key="k"))
    await asyncio.sleep(0.1)
    await bus_server.start()
    job = await handing_in
    assert (await job.status()).status == "queued"
    assert [m["audio"] for m in await queued(bus)] == [b"one", b"two"]
