"""What is no request, or too large or too slow a one, is answered and let go."""

import asyncio
import contextlib
import json

import pytest

from gateway import connections
from tests.helpers.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = b"GET /live HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"EHLO example.org\r\n",
        b"GET /live HTTP/9.9\r\n\r\n",
        GET + b"A : b\r\n\r\n",
        GET + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        GET + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n",
        b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n",
        GET + b"X: " + b"y" * 200_000,
        b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=range(10),
)
async def test_what_is_no_request_is_refused_as_everything_else(door: Gateway, head: bytes):
    async with door.line() as line:
        await line.say(head)
        status, headers, body = await line.answer()
        with contextlib.suppress(ConnectionResetError):  # it was still being sent
            assert await line.reader.read() == b""
    error = json.loads(body)["error"]
    assert (status, error["code"], headers["connection"]) == (400, "bad_request", "close")
    assert error["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize("body", [b"zz\r\n", b"1\r\nxyz\r\n", b"-1\r\nx\r\n"])
async def test_a_body_in_broken_chunks_is_refused_in_words(door: Gateway, body: bytes):
    async with door.line() as line:
        await line.say(
            b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
        )
        await asyncio.sleep(0.1)  # the request is in hand
        await line.say(body)
        status, error = await line.refusal(2)
        assert (status, error["code"]) == (400, "bad_request")
        assert await line.reader.read() == b""


async def test_trailers_without_end_are_no_way_in(door: Gateway):
    async with door.line() as line:
        await line.say(
            b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
        )
        with pytest.raises(ConnectionError):  # noqa: PT012 - whichever write is the last
            for _ in range(200):
                await line.say(b"y" * 10_000)
                await asyncio.sleep(0.002)


async def test_a_head_that_does_not_come_is_not_waited_for(
    door: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections, "HEAD_WITHIN", 0.3)
    async with door.line() as silent, door.line() as slow, door.line() as second:
        await slow.say(GET)
        await second.say(GET + b"\r\n" + GET)
        assert (await second.answer())[0] == 200
        for line in (silent, slow, second):
            status, error = await line.refusal(2)
            assert (status, error["code"]) == (408, "request_timeout")
            assert await line.reader.read() == b""


async def test_requests_on_one_connection_are_answered_in_turn(door: Gateway):
    async with door.line() as line:
        await line.say((GET + b"\r\n") * 50)
        for _ in range(50):
            assert (await line.answer())[0] == 200
