"""Jobs that failed: made by real workers, looked at, dropped, handed in again."""

import asyncio
import io
import os
import wave

import pytest
from pydantic import BaseModel

from bus_worker.bus import Address, connect
from bus_worker.claim_check import ClaimCheck
from bus_worker.client import DeadLetter, Job, TranscribeClient
from bus_worker.dead_letters import DeadLetters
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import (
    AudioTooLong,
    BadAudio,
    BadRequest,
    ClaimExpired,
    Failed,
    JobNotFound,
    Unavailable,
)
from bus_worker.jobs.means import Limits
from bus_worker.messages import Ticket, unpack
from bus_worker.plugin import Draft, stage
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.testing import pretend
from tests.helpers.house import Workers

NAMES = Subjects()
LARGE = os.urandom(1_500_000)
POISON = [True]


class Options(BaseModel):
    """None."""


@stage(Options)
def refuse(draft: Draft, options: Options) -> None:
    """Refuse everything while there is poison."""
    if POISON[0]:
        raise BadAudio("poison")


@pytest.fixture
async def client(workers: Workers) -> TranscribeClient:
    POISON[0] = True
    await workers.start(refuse, pretend, seconds=0, jobs=Limits())
    return await workers.client()


async def failed(client: TranscribeClient, audio: bytes = b"audio", **asked: str) -> Job:
    job = await client.submit(audio, **asked)
    with pytest.raises(BadAudio, match="poison"):
        await job.result(timeout=30)
    async with asyncio.timeout(30):
        while not [n async for n in client.dead.all() if n.job_id == job.id]:  # noqa: ASYNC110 - a worker's
            await asyncio.sleep(0.01)
    return job


async def test_poison_is_kept_with_its_reason_and_its_audio(client: TranscribeClient):
    small = await failed(client, b"small", language="en")
    large = await failed(client, LARGE)
    letters = [letter async for letter in client.dead.all()]
    assert [letter.job_id for letter in letters] == [small.id, large.id]
    assert [letter.reason["code"] for letter in letters] == ["bad_audio", "bad_audio"]
    one, two = (unpack(letter.message) for letter in letters)
    assert (one["audio"], one["options"]) == (b"small", {"language": "en"})
    checks = ClaimCheck(client._running().checks._nc, NAMES)
    assert await checks.fetch(Ticket(**two["claim"])) == LARGE
    assert await client.dead.get(large.id) == letters[1]


@pytest.mark.parametrize("audio", [b"small", LARGE], ids=["small", "large"])
async def test_handed_in_again_it_is_a_new_job_and_its_letter_is_gone(
    client: TranscribeClient, audio: bytes
):
    old = await failed(client, audio, language="en", priority="high")
    POISON[0] = False
    new = await client.resubmit(old.id)
    assert new.id != old.id
    assert (await client._all_jobs().results.record(old.id)).claim is None  # it is the new one's
    await old.erase()
    assert (await new.result(timeout=30)).text == f"{len(audio)} bytes"
    assert (await new.status()).priority == "high"
    assert [letter async for letter in client.dead.all()] == []
    with pytest.raises(JobNotFound, match="no dead letter"):
        await client.resubmit(old.id)


@stage(Options)
def refuse_windows(draft: Draft, options: Options) -> None:
    """A clip is too long, and a window of it cannot be heard."""
    if draft.samples is None:
        raise AudioTooLong
    raise BadAudio("poison")


async def test_a_long_jobs_letter_holds_its_message_though_a_window_failed(workers: Workers):
    await workers.start(refuse_windows, pretend, jobs=Limits())
    client = await workers.client()
    job = await failed(client, wav(40), language="en", prompt="Also")
    message = unpack((await client.dead.get(job.id)).message)
    assert message["options"] == {"language": "en", "prompt": "Also"}
    assert message["claim"]["size"] == len(wav(40))


def wav(seconds: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(os.urandom(2) * 16_000 * seconds)
    return file.getvalue()


async def test_a_dropped_one_takes_its_audio_along(client: TranscribeClient):
    job = await failed(client, LARGE)
    claim = unpack((await client.dead.get(job.id)).message)["claim"]
    await client.dead.drop(job.id)
    for asked in (client.dead.get, client.dead.drop, client.resubmit):
        with pytest.raises(JobNotFound):
            await asked(job.id)
    assert (await job.status()).status == "failed"
    with pytest.raises(ClaimExpired):
        await ClaimCheck(client._running().checks._nc, NAMES).fetch(Ticket(**claim))


async def test_an_erased_job_leaves_no_letter(client: TranscribeClient):
    job = await failed(client)
    await job.erase()
    assert [letter async for letter in client.dead.all()] == []


async def test_a_letter_without_its_message_cannot_be_handed_in(bus_server: NatsServer):
    async with (
        connect(Address((bus_server.url,))) as bus,
        TranscribeClient(nc=bus.client) as client,
    ):
        await make_streams(bus.client, NAMES, "pretend")
        for number in range(3):
            letter = DeadLetter(f"j{number}", 1.0, {}, {"job_id": "x"}, b"")
            await DeadLetters(bus.client, NAMES).keep(letter)
        assert [letter.job_id async for letter in client.dead.all()] == ["j0", "j1", "j2"]
        with pytest.raises(ClaimExpired, match="not kept"):
            await client.resubmit("j1")
        with pytest.raises(BadRequest, match="a job's id"):
            await client.dead.get("*")
        await bus.client.jetstream().publish("stt.dead.j9", b"\x80")
        with pytest.raises(Failed, match="one version"):
            await client.dead.get("j9")


async def test_a_bus_that_keeps_none_says_so():
    async with nats_server(jetstream=False) as server, TranscribeClient(server.url) as client:
        with pytest.raises(Unavailable, match="enable jetstream"):
            await anext(client.dead.all())
