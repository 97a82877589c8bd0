"""The addresses under /v1 as curl and strangers use them."""

from typing import Any

import pytest

from tests.helpers.gateway import Gateway, form

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = {"Authorization": "Bearer right"}
WAV = ("file", b"RIFF" + bytes(1000), "hello.wav", "audio/wav")
MODEL = ("model", b"whisper-1")
TRANSCRIPTIONS = "/v1/audio/transcriptions"


async def refusal(
    door: Gateway, parts: Any, path: str = TRANSCRIPTIONS, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and error of a form that is not taken."""
    head, body = form(*parts)
    async with door.caller(headers={**KEY, **head, **headers}) as http:
        answer = await http.post(path, content=body)
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] == "false"
    return answer.status_code, error


async def test_fields_are_taken_with_and_without_brackets_and_after_the_file(door: Gateway):
    for name in ("timestamp_granularities", "timestamp_granularities[]"):
        granularity = (name, b"word")
        headers, body = form(WAV, MODEL, ("response_format", b"verbose_json"), granularity)
        async with door.caller(headers={**KEY, **headers}) as http:
            said = (await http.post(TRANSCRIPTIONS, content=body)).json()
        assert (said["task"], "segments" in said, said["words"]) == ("transcribe", False, [])


@pytest.mark.parametrize(
    ("response_format", "media_type"),
    [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "application/x-subrip; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
    ],
)
async def test_each_format_says_what_it_is(door: Gateway, response_format: str, media_type: str):
    headers, body = form(MODEL, ("response_format", response_format.encode()), WAV)
    async with door.caller(headers={**KEY, **headers}) as http:
        answer = await http.post(TRANSCRIPTIONS, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)


async def test_a_stream_is_frames_of_data_and_nothing_else(door: Gateway):
    headers, body = form(MODEL, WAV, ("stream", b"true"), ("timestamp_granularities", b"word"))
    async with door.caller(headers={**KEY, **headers}) as http:
        answer = await http.post(TRANSCRIPTIONS, content=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-warning"].startswith("timestamp_granularities: ")
    *frames, end = answer.text.split("\n\n")
    assert end == ""
    assert [frame.partition(":")[0] for frame in frames] == ["data"] * 3


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ((WAV,), "model", "missing_required_parameter"),
        ((MODEL,), "file", "invalid_value"),
        ((MODEL, ("file", b"hello.wav")), "file", "invalid_value"),
        ((MODEL, WAV, WAV), "file", "invalid_value"),
        ((MODEL, ("file", b"", "empty.wav", "audio/wav")), "file", "invalid_value"),
        ((MODEL, MODEL, WAV), "model", "invalid_value"),
        ((MODEL, WAV, ("known_speaker_names[]", b"Ada")), "known_speaker_names", "unsupported_parameter"),
        ((MODEL, WAV, ("colour", b"blue")), "colour", "unknown_parameter"),
        ((MODEL, WAV, ("prompt", b"\xff")), "prompt", "invalid_value"),
        ((), "file", "invalid_value"),
    ],
)  # fmt: skip
async def test_a_wrong_form_is_refused_by_the_fields_name(
    door: Gateway, parts: Any, param: str, code: str
):
    status, error = await refusal(door, parts)
    assert (status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


async def test_a_body_that_is_no_form_is_refused(door: Gateway):
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        status, error = await refusal(door, (MODEL, WAV), **{"Content-Type": kind})
        assert (status, error["type"]) == (400, "invalid_request_error")


async def test_errors_of_the_road_have_the_envelope_too(door: Gateway):
    for path in ("/v1/nothing", "/v1", f"{TRANSCRIPTIONS}/"):
        assert (await refusal(door, (), path=path))[0] == 404
    assert (await refusal(door, (), path="/v1/models"))[0] == 405
    status, error = await refusal(door, (MODEL, WAV), Authorization="Bearer wrong")
    assert (status, error["code"]) == (401, "invalid_api_key")


async def test_a_translation_refuses_what_the_api_does_not_have_there(door: Gateway):
    path = "/v1/audio/translations"
    status, error = await refusal(door, (MODEL, WAV, ("language", b"en")), path=path)
    assert (status, error["param"], error["code"]) == (400, "language", "unknown_parameter")
