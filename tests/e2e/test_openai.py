"""A spoken clip through the `openai` package: gateway, bus, a worker process, the real model."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai as sdk
import pytest
from openai import AsyncOpenAI
from openai.types.audio import TranscriptionTextDoneEvent

from bus_worker.settings import Settings
from tests.helpers.clips import JFK, words
from tests.helpers.gateway import gateway
from tests.helpers.processes import Processes


@pytest.fixture
async def openai(processes: Processes) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's client of a gateway to one worker with a real model."""
    await processes.start(1, WHISPER_MODEL="tiny.en", PIPELINE=",".join(Settings().pipeline))
    async with (
        gateway(processes.url, default_model="tiny.en", request_timeout=60) as door,
        AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


async def test_the_words_that_were_spoken_come_back_with_their_times(
    openai: AsyncOpenAI, speech: Path
):
    clip = speech / "clips" / "jfk-wav.wav"
    heard = await openai.audio.transcriptions.create(
        file=clip, model="whisper-1", response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )  # fmt: skip
    assert words(heard.text) == JFK
    assert heard.language == "english"
    listed = heard.words or []
    assert words(" ".join(word.word for word in listed)) == JFK
    assert all(word.word == word.word.strip() for word in listed)
    starts = [word.start for word in listed]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < 1.5
    assert 9 < listed[-1].end <= heard.duration < 11.5
    assert "".join(segment.text for segment in heard.segments or []) == f" {heard.text}"

    events = [
        event
        async for event in await openai.audio.transcriptions.create(
            file=clip, model="whisper-1", stream=True,
            chunking_strategy={"type": "server_vad", "silence_duration_ms": 300, "threshold": 0.4},
        )
    ]  # fmt: skip
    *deltas, done = events
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert len(deltas) > 1  # an utterance each
    assert (
        "".join(event.delta for event in deltas if event.type == "transcript.text.delta")
        == done.text
    )
    missed = set(JFK.split()) ^ set(words(done.text).split())
    assert len(missed) <= 2  # the smallest model, an utterance at a time

    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.audio.transcriptions.create(file=clip, model="whisper-1", language="de")
    assert caught.value.param == "language"
    assert "'language': model 'tiny.en' does not know 'de'" in caught.value.message
