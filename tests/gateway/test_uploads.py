"""Bodies, well sent and badly sent."""

import asyncio

import pytest

from tests.helpers.gateway import FORM_KIND, Gateway, form, gateway, request
from tests.helpers.house import Workers

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAV = ("file", b"RIFF" + bytes(1000), "hello.wav", "audio/wav")
HEAD = b'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "cannot be read"),
        (b"nothing like a form", "cannot be read"),
        (HEAD + b"cut short", "cannot be read"),
        (HEAD + b"audio\r\n--XyZ", "cannot be read"),
        (HEAD + b"audio\r\n--XyZ??", "cannot be read"),
        (b"--XyZ\r\n\r\nno head\r\n--XyZ--\r\n", "cannot be read"),
        (b"--XyZ\r\nX: " + b"y" * 10_000 + b"\r\n\r\n\r\n--XyZ--\r\n", "cannot be read"),
        (b"--XyZ--\r\n", "no 'file'"),
        (HEAD + b"\r\n--XyZ--\r\n", "'file' is empty"),
        (HEAD + b"a\r\n" + HEAD + b"a\r\n--XyZ--\r\n", "'file' came twice"),
        (HEAD.replace(b"file", b"audio", 1) + b"a\r\n--XyZ--\r\n", "'audio' is a file"),
        (HEAD.replace(b'; filename="a.wav"', b"") + b"a.wav\r\n--XyZ--\r\n", "is text, not a file"),
    ],
    ids=range(12),
)
async def test_a_malformed_form_is_refused_in_a_sentence(door: Gateway, body, sentence):
    async with door.line() as line:
        await line.say(request(body))
        status, error = await line.refusal()
    assert (status, error["code"]) == (400, "bad_request")
    assert sentence in error["message"]


async def test_a_form_of_too_many_parts_is_refused(door: Gateway):
    headers, body = form(*[(f"f{number}", b"") for number in range(100)], WAV)
    async with door.caller() as http:
        answer = await http.post("/transcribe", content=body, headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "multipart/form-data; boundary="},
        {"Content-Type": "multipart/mixed; boundary=XyZ"},
        {"Content-Type": ";;;"},
        {"Content-Type": "audio/wav", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_a_body_of_another_kind_is_refused(door: Gateway, headers):
    async with door.caller() as http:
        answer = await http.post("/transcribe", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_a_body_in_single_bytes_is_put_together(door: Gateway):
    body = HEAD + b"\r\n--XyY\r\n-\r\n--XyZ--\r\n"
    async with door.line() as line:
        await line.say(request(b"", len(body)))
        for number in range(len(body)):
            await line.say(body[number : number + 1])
            await asyncio.sleep(0)
        status, _, said = await line.answer()
    assert (status, b'"10 bytes"' in said) == (200, True)


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(door: Gateway):
    async with door.line() as line:
        await line.say(request(HEAD, 25_000_000))
        status, headers, _ = await line.answer()
        assert (status, headers["connection"]) == (413, "close")
        async with asyncio.timeout(3):
            assert await line.reader.read() == b""  # and the line is closed


@pytest.mark.parametrize("kind", ["audio/wav", FORM_KIND])
async def test_a_body_without_a_length_is_refused_once_it_is_too_large(door: Gateway, kind):
    """25 MB against a limit of 2 MB, in chunks: the refusal comes before the rest is sent."""
    head = f"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"186a0\r\n" + bytes(100_000) + b"\r\n"
    sent = 0
    async with door.line() as line:
        await line.say(head.encode() + f"{len(HEAD):x}\r\n".encode() + HEAD + b"\r\n")
        answer = asyncio.create_task(line.answer())
        while sent < 250 and not answer.done():
            await line.say(chunk)
            await asyncio.sleep(0.005)
            sent += 1
        status, headers, _ = await answer
    assert (status, headers["connection"]) == (413, "close")
    assert sent < 60


async def test_a_large_body_that_is_refused_leaves_nothing_on_the_bus(
    door: Gateway, house: Workers
):
    js = (await house.bus()).client.jetstream()
    before = (await js.stream_info("STT_CLAIMS")).state.last_seq
    headers, body = form(("file", bytes(1_900_000), "a", "audio/wav"), ("nonsense", b"1"))
    async with door.caller() as http:
        answer = await http.post("/transcribe", content=body, headers=headers)
    assert answer.status_code == 400
    async with asyncio.timeout(30):
        while True:
            state = (await js.stream_info("STT_CLAIMS")).state
            if state.last_seq > before + 3 and state.bytes < 10_000:
                break
            await asyncio.sleep(0.02)


async def test_a_body_that_stops_coming_is_answered_with_408(house: Workers):
    async with (
        gateway(house.server.url, upload_timeout=0.5) as door,
        door.line() as half,
        door.line() as slow,
    ):
        await half.say(request(HEAD, 100_000))
        await slow.say(request(HEAD, 100_000))
        answer = asyncio.create_task(slow.refusal(3))
        while not answer.done():  # a kilobyte a second
            await slow.say(bytes(50))
            await asyncio.sleep(0.05)
        for status, error in (await half.refusal(3), await answer):
            assert (status, error["code"], error["retry"]) == (408, "request_timeout", False)


async def test_a_body_larger_than_a_request_has_as_much_more_time(house: Workers):
    async with (
        gateway(house.server.url, upload_timeout=0.5, max_file_size=1000) as door,
        door.line() as line,
    ):
        await line.say(request(b"", 20_000, kind="audio/wav", path="/jobs"))
        for _ in range(8):
            await line.say(bytes(2500))
            await asyncio.sleep(0.1)
        assert (await line.answer())[0] == 202
