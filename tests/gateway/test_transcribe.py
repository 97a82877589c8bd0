"""POST /transcribe: what goes in, what comes out, what is refused."""

import pytest

from bus_worker.errors import BadRequest
from gateway.errors import envelope
from gateway.transcribe import confidence
from tests.helpers.gateway import Gateway, form

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAV = ("file", b"RIFF" + bytes(1000), "hello.wav", "audio/wav")


async def test_a_form_with_a_file_is_answered_with_the_transcript(door: Gateway):
    async with door.caller() as http:
        answer = await http.post("/transcribe", files={"file": ("a.wav", b"RIFF" + bytes(300_000))})
    said = answer.json()
    assert answer.status_code == 200
    assert said["text"] == "300004 bytes"
    assert said["request_id"] == answer.headers["x-request-id"]
    assert said["model"]["name"] == "pretend"
    assert 0.8 < said["confidence"] < 0.83  # exp(-0.2)


async def test_a_raw_body_is_taken_with_its_options_in_the_address(door: Gateway):
    async with door.caller() as http:
        answer = await http.post(
            "/transcribe?language=en&hotwords=Kafka, Milena",
            content=bytes(5000),
            headers={"Content-Type": "audio/webm;codecs=opus", "X-Request-Id": "mine-1"},
        )
    assert answer.json()["text"] == "5000 bytes"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-1"


async def test_audio_too_large_for_a_message_goes_by_the_bus(door: Gateway):
    async with door.caller() as http:
        answer = await http.post("/transcribe", files={"file": bytes(1_900_000)})
    assert answer.json()["text"] == "1900000 bytes"


async def test_fields_may_come_after_the_file(door: Gateway):
    headers, body = form(WAV, ("beam_size", b"3"), ("language", b""), ("hotwords[]", b"a"))
    async with door.caller() as http:
        answer = await http.post("/transcribe", content=body, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (("nonsense", b"1"), "unknown field 'nonsense'"),
        (("beam_size", b"many"), "'beam_size': input should be a valid integer"),
        (("beam_size", b"11"), "'beam_size': input should be less than or equal to 10"),
        (("temperature", b"nan"), "'temperature': input should be a finite number"),
        (("vad", b"perhaps"), "'vad': input should be a valid boolean"),
        (("language", b"english"), "'language': string should match"),
        (("language", b"\xff"), "'language' is not UTF-8 text"),
        (("stages", b"{"), "'stages': invalid JSON"),
        (("stages", b'{"pretend": {"nonsense": 1}}'), "'stages.pretend.nonsense' does not exist"),
        (("model", b"../x"), "'model': string should match"),
        (("prompt", b"x" * 5000), "'prompt': string should have at most 4000 characters"),
        (("prompt", b"x" * 70_000), "'prompt' has more than 65536 bytes"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_a_field_that_is_wrong_is_refused_by_name(door: Gateway, field, sentence):
    headers, body = form(field, WAV)
    async with door.caller() as http:
        answer = await http.post("/transcribe", content=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["retry"]) == (400, "bad_request", False)
    assert sentence in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] == "false"


async def test_a_workers_refusal_names_the_field_as_the_caller_wrote_it():
    said = BadRequest("'options.language': model 'base' does not know 'zz'")
    told = envelope(said, "mine-1")["error"]["message"]
    assert told == "'language': model 'base' does not know 'zz'"


async def test_a_field_that_comes_twice_is_refused(door: Gateway):
    headers, body = form(("language", b"en"), WAV)
    async with door.caller() as http:
        answer = await http.post("/transcribe?language=de", content=body, headers=headers)
    assert "'language' came 2 times" in answer.json()["error"]["message"]


async def test_a_model_that_nobody_serves_is_not_found(door: Gateway):
    async with door.caller() as http:
        answer = await http.post("/transcribe?model=large", files={"file": bytes(100)})
    assert answer.status_code == 404
    assert answer.json()["error"]["details"] == {"models": ["pretend"]}


async def test_nothing_but_post_is_taken(door: Gateway):
    async with door.caller() as http:
        got, lost = await http.get("/transcribe"), await http.get("/nowhere")
    assert (got.status_code, got.json()["error"]["code"]) == (405, "method_not_allowed")
    assert got.headers["allow"] == "POST"
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "not_found")


async def test_nothing_heard_has_no_confidence(transcript_of):
    assert confidence(transcript_of()) is None


async def test_the_whole_confidence_is_the_mean_over_the_seconds(transcript_of):
    assert confidence(transcript_of((0, 9, -0.1), (9, 10, -1.1))) == 0.819
