"""What is too much for a request is heard as a job, and OpenAI's own client notices nothing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai as sdk
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from bus_worker.embedded import NatsServer, nats_server
from bus_worker.results import Results
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers, until
from tests.helpers.tones import tone, wav_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = wav_bytes(tone(5.0))
"""Longer than a request may be, and no larger."""
LARGE = wav_bytes(tone(9.0))
MOST = 200_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Workers]:
    """One such worker, and a bus."""
    async with nats_server(default_model="pretend") as server, Workers(server) as house:
        await house.start_at_length(2, seconds=0.2)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(house: Workers) -> AsyncIterator[Gateway]:
    """A gateway that has less patience with requests than these jobs take."""
    async with gateway(
        house.server.url, max_file_size=MOST, job_max_file_size=600_000, request_timeout=0.5
    ) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai(door: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's own client."""
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def left_over(house: Workers) -> list[str]:
    """The jobs that are known, and not erased."""
    nc = (await house.bus()).client
    known = await nc.jetstream().stream_info("STT_STATE", subjects_filter="stt.state.*.status")
    results = Results(nc, Subjects())
    found = [await results.known(subject.split(".")[2]) for subject in known.state.subjects or {}]
    return [one.record.status for one in found if one is not None and not one.record.erased]


async def nothing_left(house: Workers) -> None:
    """Wait until no job is known."""
    async with asyncio.timeout(30):
        while await left_over(house):  # noqa: ASYNC110 - what is there is the bus's to say
            await asyncio.sleep(0.02)


def parts(windows: int) -> str:
    return " ".join(["part 0"] * windows)


@pytest.mark.parametrize("clip", [LONG, LARGE], ids=["too long", "too large"])
async def test_it_is_heard_whole_and_then_forgotten(
    house: Workers, openai: AsyncOpenAI, clip: bytes
):
    heard = await openai.audio.transcriptions.create(
        file=("a.wav", clip), model="whisper-1", response_format="verbose_json"
    )
    segments = heard.segments or []
    assert heard.text == parts(len(segments))
    assert len(segments) >= len(clip) / 64_000  # windows of two seconds at most
    assert abs(heard.duration - len(clip) / 32_000) < 0.1
    await nothing_left(house)


@pytest.mark.parametrize("clip", [LONG, LARGE], ids=["too long", "too large"])
async def test_a_stream_of_it_is_deltas_in_order_and_then_the_whole(
    house: Workers, openai: AsyncOpenAI, clip: bytes
):
    stream = await openai.audio.transcriptions.create(
        file=("a.wav", clip), model="whisper-1", stream=True
    )
    *deltas, done = [event async for event in stream]
    assert done.type == "transcript.text.done"
    assert len(deltas) >= len(clip) / 64_000
    assert "".join(e.delta for e in deltas if e.type == "transcript.text.delta") == done.text
    await nothing_left(house)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the vendor's word on it
async def test_a_translation_of_it_comes_too(openai: AsyncOpenAI):
    heard = await openai.audio.translations.create(file=("a.wav", LONG), model="whisper-1")
    assert heard.text.startswith("part 0 part 0")


async def test_audio_that_cannot_be_read_is_refused_as_ever(house: Workers, openai: AsyncOpenAI):
    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.audio.transcriptions.create(
            file=("a.wav", b"nothing like audio" * 20_000), model="whisper-1"
        )
    assert (caught.value.param, caught.value.code) == ("file", "invalid_value")
    await nothing_left(house)


async def test_more_than_a_job_may_have_is_refused_while_it_comes(openai: AsyncOpenAI):
    with pytest.raises(sdk.APIStatusError) as caught:
        await openai.audio.transcriptions.create(file=("a.wav", bytes(600_001)), model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize("answer", ["whole", "stream"])
@pytest.mark.asyncio(loop_scope="function")
async def test_who_leaves_takes_the_job_along(workers: Workers, answer: str):
    service = await workers.start_at_length(2, seconds=20)
    async with (
        gateway(workers.server.url) as door,
        AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client,
    ):
        (worker,) = workers.jobs
        asked = client.with_options(timeout=2).audio.transcriptions.create(
            file=("a.wav", LONG), model="whisper-1", stream=answer == "stream"
        )
        asking = asyncio.create_task(_read(asked))
        await until(lambda: worker.lanes.jobs)
        asking.cancel()
        await asyncio.wait({asking})
        await until(lambda: not worker.lanes.jobs and not service.credits.busy)
        await nothing_left(workers)


async def _read(asked: Any) -> None:
    answer = await asked
    if isinstance(answer, sdk.AsyncStream):
        async for _ in answer:
            pass


@pytest.mark.asyncio(loop_scope="function")
async def test_where_no_jobs_are_kept_it_is_refused_as_too_long(
    bus_server: NatsServer, workers: Workers
):
    await workers.start_at_length(2, jobs=None)
    async with gateway(bus_server.url, max_file_size=MOST) as door, door.caller() as http:
        for another in (False, True):  # another model has its queues, this one has none
            if another:
                await make_streams((await workers.bus()).client, Subjects(), "other")
            for streams in (False, True):
                answer = await http.post(
                    "/v1/audio/transcriptions",
                    files={"file": ("a.wav", LONG)},
                    data={"model": "whisper-1", "stream": str(streams).lower()},
                )
                assert answer.status_code == 400
                assert "the limit is 2 s" in answer.json()["error"]["message"]
