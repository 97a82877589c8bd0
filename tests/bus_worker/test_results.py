"""What is kept of jobs, on a real nats-server: agreed upon by many, followed while it happens, erased."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from bus_worker.bus import Address, Bus, connect
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import BadRequest, JobNotFound, Unavailable
from bus_worker.jetstream import Kept
from bus_worker.job_record import JobEvent, JobRecord, Known, Trouble
from bus_worker.messages import Segment, error_to_map, pack
from bus_worker.results import Results, Unreadable
from bus_worker.subjects import Subjects
from tests.helpers.house import until

NAMES = Subjects()
QUEUED = JobRecord(job_id="j", status="queued", model="pretend")
SEGMENT = Segment(0, 0, 0.0, 1.0, "one", [1], -0.1, 0.0, 1.0, 0.0)


async def heard(results: Results, after: int = 0) -> list[JobEvent]:
    async with asyncio.timeout(30):
        return [event async for event in results.follow("j", after)]


async def end(results: Results, status: str = "done", **more: object) -> JobRecord:
    """What a worker does at a job's end."""
    known = await results.change("j", lambda was: replace(was, status=status, **more))
    await results.tell_end(known.record)
    return known.record


async def messages(bus: Bus, stream: str) -> int:
    return (await bus.client.jetstream().stream_info(stream)).state.messages


# --- a cluster's server that is behind -----------------------------------------------------------


@pytest.fixture
def behind(results: Results, monkeypatch: pytest.MonkeyPatch) -> dict[str, Kept | None]:
    """What a server that is behind has of each subject; nothing, where it is not said."""
    old: dict[str, Kept | None] = {}

    async def last(stream: str, subject: str, **_: float) -> Kept | None:
        return old.get(subject)

    async def following(stream: str, subject: str, sequence: int) -> None:
        return None

    monkeypatch.setattr(results.js, "last", last)
    monkeypatch.setattr(results.js, "following", following)
    return old


async def test_what_a_server_does_not_have_yet_is_asked_of_the_leader(
    results: Results, behind: dict[str, Kept | None]
):
    """Else a worker took a job for erased that was handed in a moment ago, and dropped it."""
    made = await results.create(QUEUED)
    assert made == await results.known("j")
    assert await results.keep_window("j", 0, {"text": "one"})
    assert await results.window("j", 0) == {"text": "one"}
    known = await results.change("j", lambda was: replace(was, status="done", windows=1))
    answer, parts = await results.keep_transcript("j", {"text": "one"})
    record = replace(known.record, answer=answer, parts=parts)
    assert await results.transcript(record) == {"text": "one"}
    await results.erase(record)
    assert await results.window("j", 0) is None
    with pytest.raises(JobNotFound):
        await results.transcript(record)


async def test_that_nothing_need_be_changed_is_not_believed_of_one_that_is_behind(
    results: Results, behind: dict[str, Kept | None]
):
    await results.create(QUEUED)
    subject = NAMES.state("j", "status")
    behind[subject] = await results.js.surely_last(NAMES.state_stream, subject)
    await results.change("j", lambda was: replace(was, status="running", holder="me"))

    def release(was: JobRecord) -> JobRecord:
        return replace(was, status="queued", holder="") if was.holder == "me" else was

    known = await results.change("j", release)
    assert (known.record.status, known.sequence) == ("queued", 3)


async def test_a_job_of_an_erased_ones_id_is_not_taken_for_erased(
    results: Results, behind: dict[str, Kept | None]
):
    await results.create(QUEUED)
    await results.erase(QUEUED)
    erased = await results.known("j")
    assert erased is not None
    assert erased.record.erased
    subject = NAMES.state("j", "status")
    behind[subject] = await results.js.surely_last(NAMES.state_stream, subject)
    again = await results.create(QUEUED, erased)
    assert again == await results.known("j")


# --- status --------------------------------------------------------------------------------------


async def test_a_job_is_made_once_and_read_by_all(results: Results):
    assert await results.known("j") is None
    made = await results.create(QUEUED)
    assert made == await results.known("j") == Known(QUEUED, made.sequence)
    assert await results.create(replace(QUEUED, model="other")) is None
    assert await results.record("j") == QUEUED


@pytest.mark.parametrize(
    "garbage", [b"\xc1", pack({"job_id": 1}), pack({"status": "queued"})], ids=repr
)
async def test_a_record_that_cannot_be_read_is_said_to_whoever_asks(
    results: Results, garbage: bytes
):
    await results.js.write("STT_STATE", NAMES.state("j", "status"), garbage)
    with pytest.raises(Unreadable, match="one version"):
        await results.record("j")
    with pytest.raises(Unreadable):
        await results.change("j", lambda was: was)


async def test_twenty_writers_at_once_lose_no_change(results: Results):
    await results.create(QUEUED)

    def once_more(was: JobRecord) -> JobRecord:
        return replace(was, attempts=was.attempts + 1)

    await asyncio.gather(*(results.change("j", once_more) for _ in range(20)))
    assert (await results.record("j")).attempts == 20


async def test_a_change_that_changes_nothing_writes_nothing(results: Results):
    known = await results.create(QUEUED)
    assert await results.change("j", lambda was: was) == known


async def test_a_change_from_what_was_seen_long_ago_is_made_anew(results: Results):
    old = await results.create(QUEUED)
    await results.change("j", lambda was: replace(was, attempts=1))
    known = await results.change("j", lambda was: replace(was, worker_id="w"), old)
    assert (known.record.attempts, known.record.worker_id) == (1, "w")


async def test_what_ended_is_known_for_a_while_only(bus: Bus):
    results = Results(bus.client, NAMES, kept=1)
    await results.create(QUEUED)
    await end(results)
    async with asyncio.timeout(30):
        while await results.known("j") is not None:  # noqa: ASYNC110 - it belongs to the server
            await asyncio.sleep(0.1)
    with pytest.raises(JobNotFound):
        await results.record("j")
    with pytest.raises(JobNotFound):
        await heard(results)
    with pytest.raises(JobNotFound):
        await results.change("j", lambda was: was)


async def test_a_strange_id_reaches_no_subject(results: Results):
    for job_id in ("", "*", ">", "a.b", "a b", "ä", "x" * 65, "a\r\nPUB x 0"):
        with pytest.raises(BadRequest, match="a job's id"):
            await results.known(job_id)
        with pytest.raises(BadRequest, match="a job's id"):
            await anext(results.follow(job_id))


# --- windows and transcripts ---------------------------------------------------------------------


async def test_of_two_results_of_a_window_the_first_stays(results: Results):
    kept = await asyncio.gather(*(results.keep_window("j", 0, {"by": n}) for n in range(5)))
    assert sum(kept) == 1
    assert await results.window("j", 0) == {"by": kept.index(True)}
    assert await results.window("j", 1) is None


async def test_what_a_window_has_cost_is_remembered(results: Results):
    assert await results.trouble("j", 3) == Trouble()
    await results.note_trouble("j", 3, Trouble(starts=2, failures=300))
    assert await results.trouble("j", 3) == Trouble(2, 255)
    assert await results.trouble("j", 4) == Trouble()


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_transcript_of_any_size_comes_back(results: Results, size: int):
    word, parts = await results.keep_transcript("j", {"text": "x" * size})
    assert parts == 1 + size // 700_000
    record = replace(QUEUED, status="done", answer=word, parts=parts)
    assert await results.transcript(record) == {"text": "x" * size}


async def test_a_transcript_of_which_a_part_is_gone_is_gone(results: Results):
    word, parts = await results.keep_transcript("j", {"text": "x" * 1_000_000})
    with pytest.raises(JobNotFound):
        await results.transcript(replace(QUEUED, answer=word, parts=parts + 1))


# --- events --------------------------------------------------------------------------------------


async def test_events_are_heard_in_order_whether_they_came_before_or_while_one_listens(
    results: Results, bus: Bus
):
    await results.create(QUEUED)
    before = bus.client._subs.copy()
    await results.tell(QUEUED, "queued")
    listening = asyncio.create_task(heard(results))
    await until(lambda: len(bus.client._subs) > len(before))
    for number in range(3):
        running = replace(QUEUED, status="running", progress=number / 3)
        await results.tell(running, f"w{number}", window=number, segments=[SEGMENT])
    await end(results)
    events = await listening
    assert [e.status for e in events] == ["queued", "running", "running", "running", "done"]
    assert [e.window for e in events] == [None, 0, 1, 2, None]
    assert events[1].segments == [SEGMENT]
    assert sorted({e.id for e in events}) == [e.id for e in events]
    assert bus.client._subs == before
    assert await heard(results, events[2].id) == events[3:]


async def test_an_event_told_twice_is_heard_once(results: Results):
    await results.create(QUEUED)
    await asyncio.gather(*(results.tell(QUEUED, "a") for _ in range(5)))
    record = await end(results, "failed", error=error_to_map(JobNotFound())["error"])
    await results.tell_end(record)
    events = await heard(results)
    assert [e.status for e in events] == ["queued", "failed"]
    assert events[-1].error == record.error


async def test_an_end_that_nobody_told_is_heard_too(results: Results):
    await results.create(QUEUED)
    await results.change("j", lambda was: replace(was, status="cancelled"))
    (event,) = await heard(results)
    assert event.status == "cancelled"


async def test_who_has_heard_the_end_hears_it_again_and_not_for_ever(results: Results):
    await results.create(QUEUED)
    await end(results)
    (last,) = await heard(results)
    (again,) = await heard(results, last.id)
    assert (again.id, again.status) == (last.id, "done")


async def test_an_id_that_no_event_has_is_refused(results: Results):
    await results.create(QUEUED)
    for after in (-1, 1 << 63, 10**30):
        with pytest.raises(BadRequest, match="no event has the id"):
            await heard(results, after)


async def test_whoever_leaves_leaves_no_subscription_behind(results: Results, bus: Bus):
    await results.create(QUEUED)
    await results.tell(QUEUED, "queued")
    before = bus.client._subs.copy()
    async with aclosing(results.follow("j")) as events:
        await anext(events)
        assert bus.client._subs != before
    assert bus.client._subs == before
    listening = asyncio.create_task(heard(results))
    await until(lambda: bus.client._subs != before)
    listening.cancel()
    await asyncio.wait({listening})
    assert bus.client._subs == before


async def test_a_listener_outlives_a_restart_of_the_server(
    results: Results, bus: Bus, bus_server: NatsServer
):
    await results.create(QUEUED)
    await results.tell(QUEUED, "queued")
    first = asyncio.Event()
    events: list[JobEvent] = []

    async def listen() -> None:
        async for event in results.follow("j"):
            events.append(event)
            first.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(listen())
        await first.wait()
        for number in range(2):
            bus_server.process.kill()
            await bus_server.process.wait()
            await bus_server.start()
            await results.tell(replace(QUEUED, status="running"), f"w{number}", window=number)
        await end(results)
    assert [(e.status, e.window) for e in events] == [
        ("queued", None), ("running", 0), ("running", 1), ("done", None),
    ]  # fmt: skip


# --- erased --------------------------------------------------------------------------------------


async def test_of_an_erased_job_nothing_is_left_but_that_there_was_one(results: Results, bus: Bus):
    await results.create(QUEUED)
    await results.keep_source("j", b"audio")
    await results.keep_window("j", 0, {"text": "words"})
    await results.tell(QUEUED, "w0", segments=[SEGMENT])
    await results.note_trouble("j", 0, Trouble(1))
    await results.keep_transcript("j", {"text": "of one that was killed"})
    word, parts = await results.keep_transcript("j", {"text": "words"})
    record = await end(results, answer=word, parts=parts, windows=1, webhook="https://x")
    await results.erase(record)
    for gone in (results.record("j"), heard(results), results.change("j", lambda was: was)):
        with pytest.raises(JobNotFound):
            await gone
    known = await results.known("j")
    assert known.record == JobRecord(job_id="j", status="done", model="pretend", erased=True)
    assert (await results.source("j"), await results.window("j", 0)) == (None, None)
    with pytest.raises(JobNotFound):
        await results.transcript(record)
    async with asyncio.timeout(30):
        while await messages(bus, NAMES.state_stream) > 1:  # noqa: ASYNC110 - it belongs to the server
            await asyncio.sleep(0.1)
        while await messages(bus, NAMES.events_stream):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)


async def test_a_job_erased_while_it_is_followed_ends_the_following(results: Results, bus: Bus):
    await results.create(QUEUED)
    listening = asyncio.create_task(heard(results))
    before = len(bus.client._subs)
    await until(lambda: len(bus.client._subs) > before)
    await results.erase(QUEUED)
    with pytest.raises(JobNotFound):
        await listening


async def test_an_erased_jobs_id_is_free_for_another(results: Results):
    await results.create(QUEUED)
    await results.erase(QUEUED)
    assert await results.create(QUEUED) is None
    erased = await results.known("j")
    assert await results.create(replace(QUEUED, model="new"), erased) is not None
    assert await results.create(replace(QUEUED, model="newer"), erased) is None
    assert (await results.record("j")).model == "new"


async def test_a_bus_without_jetstream_is_said_when_a_job_is_asked_for():
    async with nats_server(jetstream=False) as server, connect(Address((server.url,))) as bus:
        with pytest.raises(Unavailable, match="enable jetstream"):
            await Results(bus.client, NAMES).record("j")
