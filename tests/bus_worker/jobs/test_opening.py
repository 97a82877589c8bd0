"""A long recording: cut, heard window by window, joined; refused, stopped and erased at any place."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from nats.aio.client import Client

from bus_worker.claim_check import ClaimCheck, Deposit
from bus_worker.client import Job
from bus_worker.dead_letters import DeadLetters
from bus_worker.errors import AudioTooLong, BadAudio, BusWorkerError, Cancelled, Failed, TooLarge
from bus_worker.job_record import JobRecord
from bus_worker.jobs import Limits, judging, opening
from bus_worker.messages import pack
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.results import Results
from bus_worker.testing import segment
from plugins.decode import decode
from tests.helpers.course import audio_left, events_of, idle, kept_of, queued_in
from tests.helpers.house import NAMES, Workers
from tests.helpers.jobs import narrowed
from tests.helpers.tones import encode, noise, wav_bytes

SECONDS = 5
RECORDING = wav_bytes(noise(SECONDS))
"""Of 5 to 8 windows of a second."""
LARGE = encode(noise(SECONDS, 96_000), 96_000, "wav")
"""As long, and more than a message takes: it is left on the bus."""


class Ear:
    """A stage that notes what it is asked, and may be held."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        """The language of each window."""
        self.lengths: list[int] = []
        self.says: Callable[[Draft], Awaitable[None]] | None = None

    def stage(self) -> Stage:
        @stage(needs=("samples",), gives=("segments", "text"))
        async def ear(draft: Draft, _: NoOptions) -> None:
            """Hear how many samples there are."""
            assert draft.samples is not None
            self.asked.append(draft.options.language)
            self.lengths.append(len(draft.samples))
            draft.text = str(len(draft.samples))
            draft.segments.append(segment(f" {draft.text}", 0.0, len(draft.samples) / 16_000))
            draft.language = "de"
            if self.says is not None:
                await self.says(draft)

        return ear


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "NOT_NOW", 0.05)
    monkeypatch.setattr(judging, "LONGEST", 0.05)


@pytest.fixture
async def nc(workers: Workers) -> Client:
    return (await workers.bus()).client


async def worker(workers: Workers, ear: Ear, longest: float = 1.0, **limits: Any) -> None:
    await workers.start(
        decode, ear.stage(), options={"decode": {"max_duration": longest}},
        jobs=Limits(longest_clip=longest, **limits),
    )  # fmt: skip


async def submit(workers: Workers, audio: bytes, **asked: Any) -> Job:
    return await (await workers.client()).submit(audio, **asked)


async def nothing_left(nc: Client, job: Job) -> None:
    """Wait until nothing of it waits; of its work nothing may be kept either."""
    await idle(nc)
    assert await kept_of(nc, job.id, but=("text-",)) == {"status"}


# --- heard ---------------------------------------------------------------------------------------


async def test_a_recording_is_heard_in_windows_and_joined(workers: Workers, nc: Client, ear: Ear):
    await worker(workers, ear, longest=30.0)
    job = await submit(workers, wav_bytes(noise(65)))
    result = await job.result(30)
    status = await job.status()
    assert (status.windows, status.windows_done, status.progress) == (3, 3, 1.0)
    assert (result.duration, status.duration, result.language) == (65.0, 65.0, "de")
    assert sum(ear.lengths) == 65 * 16_000
    assert max(ear.lengths) <= 30 * 16_000
    assert sorted(result.text.split()) == sorted(map(str, ear.lengths))
    assert [one.id for one in result.segments] == [0, 1, 2]
    ends = [one.end for one in result.segments]
    assert [one.start for one in result.segments] == [0.0, *ends[:-1]]
    assert [one async for one in job.segments()] == result.segments
    await nothing_left(nc, job)
    assert not await audio_left(nc, await Results(nc, NAMES).record(job.id))


@pytest.mark.parametrize(
    ("unsure", "silent", "asked"), [(0, 0, 1), (0, 2, 3), (9, 0, 3), (1, 1, 3)]
)
async def test_the_language_of_the_first_speech_is_that_of_the_rest(  # noqa: PLR0917
    workers: Workers, nc: Client, ear: Ear, unsure: int, silent: int, asked: int
):
    async def says(draft: Draft) -> None:
        if len(ear.asked) <= silent:
            draft.language = None
        elif len(ear.asked) <= silent + unsure:
            draft.warn("language_uncertain")

    ear.says = says
    await worker(workers, ear)
    job = await submit(workers, RECORDING)
    assert (await job.result(30)).language == "de"
    assert ear.asked == [None] * asked + ["de"] * (len(ear.asked) - asked)
    assert len(ear.asked) == (await job.status()).windows


async def test_a_queue_of_windows_that_is_full_makes_nobody_fail(
    workers: Workers, nc: Client, ear: Ear
):
    await worker(workers, ear)
    await narrowed(nc, "STT_WINDOWS", 2)
    job = await submit(workers, RECORDING)
    assert (await job.result(30)).duration == SECONDS
    status = await job.status()
    assert status.failures == 0
    assert status.attempts > 1
    assert sum(ear.lengths) == SECONDS * 16_000  # none was heard twice
    await nothing_left(nc, job)


# --- refused -------------------------------------------------------------------------------------


async def refused(nc: Client, job: Job, kind: type[BusWorkerError]) -> BusWorkerError:
    """The error of a job that was refused, of which only the dead letter is left."""
    with pytest.raises(kind) as failed:
        await job.result(30)
    await nothing_left(nc, job)
    status = await job.status()
    assert (status.status, status.attempts) == ("failed", 1)
    assert (await DeadLetters(nc, NAMES).get(job.id)).message
    return failed.value


@pytest.mark.parametrize("kind", ["wav", "webm-live"])
async def test_a_recording_that_is_too_long_is_refused_wherever_that_is_seen(
    workers: Workers, nc: Client, ear: Ear, kind: str
):
    """Live audio does not say how long it is: some windows are out by then."""
    await worker(workers, ear, max_duration=3.0)
    job = await submit(workers, encode(noise(SECONDS, 48_000), 48_000, kind), language="de")
    error = await refused(nc, job, AudioTooLong)
    assert "3" in error.message


async def test_a_recording_of_too_many_bytes_is_refused(workers: Workers, nc: Client, ear: Ear):
    await worker(workers, ear, max_bytes=100_000)
    error = await refused(nc, await submit(workers, RECORDING), TooLarge)
    assert error.details == {"size": len(RECORDING), "maximum": 100_000}
    assert not ear.asked


async def test_a_recording_of_more_windows_than_can_be_counted_is_refused(
    workers: Workers, nc: Client, ear: Ear, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(opening, "MAX_WINDOWS", 4)
    await worker(workers, ear)
    await refused(nc, await submit(workers, RECORDING), AudioTooLong)
    assert len(ear.asked) <= 4


async def test_a_recording_that_is_broken_in_the_middle_is_refused(
    workers: Workers, nc: Client, ear: Ear
):
    whole = encode(noise(SECONDS, 48_000), 48_000, "flac")
    half = len(whole) // 2
    await worker(workers, ear)
    await refused(nc, await submit(workers, whole[:half] + bytes(len(whole) - half)), BadAudio)


# --- stopped -------------------------------------------------------------------------------------


class Halt:
    """Holds a job's worker at one place."""

    def __init__(self, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.asked: dict[str, Any] = {"language": "de"}
        self._ear = ear
        self._patch = monkeypatch

    def fetching(self) -> None:
        async def fetch_into(*_: Any) -> None:
            await self.forever()

        self._patch.setattr(ClaimCheck, "fetch_into", fetch_into)

    def opening(self) -> None:
        cut, loop = opening._next, asyncio.get_running_loop()

        def slowly(windows: Any) -> Any:
            window = cut(windows)
            if window is not None and window.number == 1:
                loop.call_soon_threadsafe(self.reached.set)
            time.sleep(0.2)
            return window

        self._patch.setattr(opening, "_next", slowly)

    def first_speech(self) -> None:
        self.asked = {}
        self._ear.says = self.forever

    def hearing(self) -> None:
        self._ear.says = self.forever

    async def forever(self, _: Draft | None = None) -> None:
        self.reached.set()
        await asyncio.sleep(60)


PLACES = ("fetching", "opening", "first_speech", "hearing")


@pytest.mark.parametrize("act", ["cancel", "erase"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_job_is_stopped_wherever_it_is(  # noqa: PLR0917
    workers: Workers, nc: Client, ear: Ear, monkeypatch: pytest.MonkeyPatch, place: str, act: str
):
    halt = Halt(ear, monkeypatch)
    getattr(halt, place)()
    await worker(workers, ear)
    job = await submit(workers, LARGE, **halt.asked)
    async with asyncio.timeout(30):
        await halt.reached.wait()
    record = await Results(nc, NAMES).record(job.id)
    await getattr(job, act)()
    await nothing_left(nc, job)
    assert not await audio_left(nc, record)
    assert await queued_in(nc, "STT_WINDOWS") == 0
    told = await events_of(nc, job.id)
    known = await Results(nc, NAMES).known(job.id)
    assert known is not None
    if act == "cancel":
        assert (known.record.status, told[-1].status) == ("cancelled", "cancelled")
        assert [one.final for one in told].count(True) == 1
        with pytest.raises(Cancelled):
            await job.result(30)
    else:
        assert (known.record.erased, told) == (True, [])
        bare = JobRecord(job_id=job.id, status="cancelled", model="pretend", erased=True)
        assert replace(known.record, sequence=0) == bare
    assert await kept_of(nc, job.id) == {"status"}
    ear.says = None
    monkeypatch.undo()
    assert (await (await submit(workers, RECORDING)).result(30)).duration == SECONDS


@pytest.mark.parametrize("place", ["clip", "fetching", "first speech", "hearing", "hearing again"])
async def test_a_job_erased_behind_its_workers_back_leaves_nothing(
    workers: Workers, nc: Client, ear: Ear, monkeypatch: pytest.MonkeyPatch, place: str
):
    """Nobody hears of it; the work goes on, and may fail."""
    results, fetch_into = Results(nc, NAMES), ClaimCheck.fetch_into
    erasing = asyncio.Lock()

    async def erase(draft: Draft | None = None) -> None:
        async with erasing:
            known = await results.known("j1")
            assert known is not None
            if not known.record.erased:
                await results.erase(known.record)
        if place == "hearing again" and draft is not None:
            raise Failed

    async def fetched(*args: Any) -> None:
        await fetch_into(*args)
        await erase()

    if place == "fetching":
        monkeypatch.setattr(ClaimCheck, "fetch_into", fetched)
    else:
        ear.says = erase
    await worker(workers, ear)
    language = {} if place == "first speech" else {"language": "de"}
    audio = {"audio": wav_bytes(noise(0.4)) if place == "clip" else RECORDING}
    if place == "fetching":
        ticket = await ClaimCheck(nc, NAMES).put(Deposit(), LARGE)
        audio = {"claim": asdict(ticket)}
    await nc.jetstream().publish(
        NAMES.jobs("pretend", "low"),
        pack({**audio, "options": language}),
        headers={"Stt-Job-Id": "j1"},
    )
    await idle(nc)
    await nc.flush()
    assert await kept_of(nc, "j1") == {"status"}
    assert await events_of(nc, "j1") == []
    known = await results.known("j1")
    assert known is not None
    assert known.record.erased
