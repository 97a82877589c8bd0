"""The `openai` package for Python against the gateway."""

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai as sdk
import pytest
from openai import AsyncOpenAI
from openai.types.audio import (
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from bus_worker.testing import pretend
from gateway import sse
from plugins.tidy import tidy
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers, until
from tests.helpers.trouble import broken, reluctant

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = ("clip.wav", b"RIFF" + bytes(1000), "audio/wav")
TEXT = "part 0 part 1"
SRT = "1\n00:00:00,000 --> 00:00:01,000\npart 0\n\n2\n00:00:01,000 --> 00:00:02,000\npart 1\n"
VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\npart 0\n\n00:00:01.000 --> 00:00:02.000\npart 1\n"


async def test_json_is_the_default(openai: AsyncOpenAI):
    heard = await openai.audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert heard.text == TEXT
    assert heard.usage is not None
    assert heard.usage.type == "duration"
    assert heard._request_id


@pytest.mark.parametrize(
    ("response_format", "body"),
    [
        ("text", f"{TEXT}\n"),
        ("srt", SRT),
        ("vtt", VTT),
    ],
)
async def test_plain_formats_come_as_text(openai: AsyncOpenAI, response_format: Any, body: str):
    heard = await openai.audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format=response_format
    )
    assert heard == body


async def test_verbose_json_comes_as_its_type(openai: AsyncOpenAI):
    heard = await openai.audio.transcriptions.create(
        file=CLIP,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert isinstance(heard, TranscriptionVerbose)
    TranscriptionVerbose.model_validate(heard.model_dump())  # the SDK itself does not check
    assert (heard.language, heard.text, heard.words) == ("english", TEXT, None)
    assert [s.text for s in heard.segments or ()] == [" part 0", " part 1"]


async def test_every_field_that_can_be_honoured_is_taken(openai: AsyncOpenAI):
    heard = await openai.audio.transcriptions.with_raw_response.create(
        file=CLIP, model="gpt-4o-transcribe", chunking_strategy="auto", keywords=["one", "two"],
        languages=["en"], prompt="Before.", temperature=0.2, response_format="json",
    )  # fmt: skip
    assert heard.parse().text == TEXT
    assert "x-warning" not in heard.headers


async def test_a_field_without_effect_is_answered_with_a_warning(openai: AsyncOpenAI):
    heard = await openai.audio.transcriptions.with_raw_response.create(
        file=CLIP, model="whisper-1", timestamp_granularities=["word"]
    )
    assert heard.headers["x-warning"].startswith("timestamp_granularities: ")


async def test_a_stream_is_deltas_and_then_the_whole_text(openai: AsyncOpenAI):
    stream = await openai.audio.transcriptions.create(file=CLIP, model="whisper-1", stream=True)
    *deltas, done = [event async for event in stream]
    assert [e.delta for e in deltas if isinstance(e, TranscriptionTextDeltaEvent)] == [
        "part 0", " part 1",
    ]  # fmt: skip
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == TEXT


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the vendor's word on it
async def test_a_translation_is_text(openai: AsyncOpenAI):
    heard = await openai.audio.translations.create(file=CLIP, model="whisper-1")
    assert heard.text == TEXT


async def test_models_are_those_that_workers_serve(openai: AsyncOpenAI):
    assert [model.id async for model in openai.models.list()] == ["pretend"]
    assert (await openai.models.retrieve("pretend")).owned_by == "bus-worker"
    assert (await openai.models.retrieve("whisper-1")).id == "whisper-1"
    with pytest.raises(sdk.NotFoundError) as caught:
        await openai.models.retrieve("org/huge")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("asked", "kind", "param", "code"),
    [
        ({"model": "huge"}, sdk.NotFoundError, "model", "model_not_found"),
        ({"model": "org/huge"}, sdk.NotFoundError, "model", "model_not_found"),
        ({"response_format": "diarized_json"}, sdk.BadRequestError, "response_format", "unsupported_value"),
        ({"include": ["logprobs"]}, sdk.BadRequestError, "include", "unsupported_parameter"),
        ({"extra_body": {"colour": "blue"}}, sdk.BadRequestError, "colour", "unknown_parameter"),
        ({"language": "english"}, sdk.BadRequestError, "language", "invalid_language_format"),
        ({"file": ("empty.wav", b"")}, sdk.BadRequestError, "file", "invalid_value"),
    ],
)  # fmt: skip
async def test_a_refusal_is_the_sdks_own_exception(
    openai: AsyncOpenAI,
    asked: dict[str, Any],
    kind: type[sdk.APIStatusError],
    param: str,
    code: str,
):
    with pytest.raises(kind) as caught:
        await openai.audio.transcriptions.create(**{"file": CLIP, "model": "whisper-1", **asked})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


async def test_a_wrong_key_is_an_authentication_error(door: Gateway):
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key="wrong") as stranger:
        with pytest.raises(sdk.AuthenticationError) as caught:
            await stranger.models.list()
    assert caught.value.code == "invalid_api_key"


async def test_a_file_too_large_is_told_with_413(openai: AsyncOpenAI):
    with pytest.raises(sdk.APIStatusError) as caught:
        await openai.audio.transcriptions.create(
            file=("b.wav", bytes(2_000_001)), model="whisper-1"
        )
    assert (caught.value.status_code, caught.value.param) == (413, "file")


class Counted(httpx2.AsyncHTTPTransport):
    """Notes the status of every answer, those to be asked for again included."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        self.statuses.append(response.status_code)
        return response


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
async def stranger(workers: Workers, counted: Counted) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's client of a gateway without a key, to workers of the test's own."""
    async with (
        gateway(workers.server.url) as door,
        httpx2.AsyncClient(transport=counted) as http,
        AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", http_client=http) as client,
    ):
        yield client


@pytest.mark.asyncio(loop_scope="function")
async def test_the_sdk_asks_again_when_there_was_no_room(
    workers: Workers, counted: Counted, stranger: AsyncOpenAI
):
    await workers.start(reluctant())
    heard = await stranger.audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert heard.text == "asked 2 times"
    assert counted.statuses == [503, 200]


@pytest.mark.asyncio(loop_scope="function")
async def test_the_sdk_does_not_ask_again_where_it_does_not_help(
    workers: Workers, counted: Counted, stranger: AsyncOpenAI
):
    await workers.start(broken)
    with pytest.raises(sdk.InternalServerError) as caught:
        await stranger.audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert (caught.value.type, caught.value.code) == ("server_error", "failed")
    assert counted.statuses == [500]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_key_with_too_much_in_hand_is_a_rate_limit_error(workers: Workers):
    service = await workers.start(seconds=20, slots=2)
    async with (
        gateway(workers.server.url, api_key_requests=1) as door,
        AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client,
    ):
        ask = functools.partial(client.audio.transcriptions.create, file=CLIP, model="whisper-1")
        first = asyncio.create_task(ask(), name="first")
        await until(lambda: service.credits.busy)
        with pytest.raises(sdk.RateLimitError) as caught:
            await ask()
        first.cancel()
        await asyncio.wait({first})
    assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(caught.value.response.headers["retry-after"]) >= 1


@pytest.mark.asyncio(loop_scope="function")
async def test_an_answer_that_comes_too_late_is_a_server_error_to_ask_for_again(workers: Workers):
    await workers.start(seconds=20)
    async with (
        gateway(workers.server.url, request_timeout=0.3) as door,
        AsyncOpenAI(base_url=f"{door.url}/v1", api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(sdk.InternalServerError) as caught:
            await client.audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert caught.value.response.headers["x-should-retry"] == "true"


@pytest.mark.asyncio(loop_scope="function")
async def test_an_error_inside_a_stream_is_the_sdks_exception(
    workers: Workers, stranger: AsyncOpenAI
):
    await workers.start(broken)
    stream = await stranger.audio.transcriptions.create(file=CLIP, model="whisper-1", stream=True)
    events = aiter(stream)
    assert (await anext(events)).type == "transcript.text.delta"
    with pytest.raises(sdk.APIError) as caught:
        await anext(events)
    assert (caught.value.type, caught.value.code) == ("server_error", "failed")
    assert "the model failed on this audio" in caught.value.message


@pytest.mark.asyncio(loop_scope="function")
async def test_signs_of_life_are_no_events(
    workers: Workers, stranger: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sse, "PLAIN_FOR", 0.01)
    monkeypatch.setattr(sse, "BEAT", 0.05)
    await workers.start(pretend, tidy, seconds=0.5)
    stream = await stranger.audio.transcriptions.create(file=CLIP, model="whisper-1", stream=True)
    assert [event.type async for event in stream] == [
        "transcript.text.delta", "transcript.text.done",
    ]  # fmt: skip


@pytest.mark.asyncio(loop_scope="function")
async def test_who_leaves_a_stream_takes_the_work_along(workers: Workers, stranger: AsyncOpenAI):
    service = await workers.start(seconds=20, segments=100)
    stream = await stranger.audio.transcriptions.create(file=CLIP, model="whisper-1", stream=True)
    assert (await anext(aiter(stream))).type == "transcript.text.delta"
    await stream.close()
    await until(lambda: service.counts["cancelled"] == 1)


@pytest.mark.asyncio(loop_scope="function")
async def test_who_has_no_more_patience_takes_the_work_along(
    workers: Workers, stranger: AsyncOpenAI
):
    service = await workers.start(seconds=20)
    hasty = stranger.with_options(timeout=0.3, max_retries=0)
    with pytest.raises(sdk.APITimeoutError):
        await hasty.audio.transcriptions.create(file=CLIP, model="whisper-1")
    await until(lambda: service.counts["cancelled"] == 1)
