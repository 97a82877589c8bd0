"""Hostile messages over a real bus: each gets an error with its code, or is dropped; the worker goes on."""

import asyncio
import math
import os

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg

from bus_worker.messages import pack, unpack
from tests.helpers.house import Workers, until
from tests.helpers.wire import raw_publish

SUBJECT = "stt.v1.transcribe.pretend"

CLAIM = {"id": "0" * 32, "chunks": 1, "size": 10_000, "sha256": "0" * 64}
HOSTILE = {
    "nothing": b"",
    "not msgpack": b"GET / HTTP/1.1\r\n\r\n",
    "10 000 deep": b"\x81\xa1a" * 10_000 + b"\xc0",
    "lists 10 000 deep": b"\x91" * 10_000 + b"\xc0",
    "a huge text": b"\xdb\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "a huge list": b"\xdd\xff\xff\xff\xff",
    "a huge bin": b"\x81\xa5audio\xc6\xff\xff\xff\xff1234",
    "a huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "bytes after the end": pack({"audio": b"x"}) + b"\x00",
    "a list": msgpack.packb([1, 2]),
    "number keys": msgpack.packb({1: 2}),
    "byte keys": msgpack.packb({b"\xff": b"x"}),
    "byte keys inside": msgpack.packb({"audio": b"x", "options": {b"\xff": b"x"}}),
    "not utf-8": b"\x81\xa5audio\xa2\xff\xfe",
    "no audio": pack({"text": "x"}),
    "text for audio": pack({"audio": "x" * 1000}),
    "unknown keys": pack({"audio": b"x", "__class__": "os.system"}),
    "NaN": pack({"audio": b"x", "options": {"temperature": math.nan}}),
    "infinity": pack({"audio": b"x", "options": {"temperature": math.inf}}),
    "a huge number": pack({"audio": b"x", "options": {"beam_size": 2**63}}),
    "a timestamp": msgpack.packb({"audio": msgpack.Timestamp(1)}),
    "stages of stages": pack(
        {"audio": b"x", "stages": {"pretend": {"seconds": {"a": [1] * 1000}}}}
    ),
    "8 MB of zeros": bytes(8_000_000),
    "2 million lists for audio": b"\x81\xa5audio\xdd\x00\x1e\x84\x80" + b"\x90" * 2_000_000,
    "2 million maps in a stage": b"\x82\xa5audio\xc4\x01x\xa6stages\xdd\x00\x1e\x84\x80"
    + b"\x80" * 2_000_000,
    "a key of 2 million lists": b"\x81\xdd\x00\x1e\x84\x80" + b"\x90" * 2_000_000 + b"\xc0",
    "audio and a ticket": pack({"audio": b"x", "claim": CLAIM}),
    "a ticket for every subject": pack({"claim": CLAIM | {"id": ">"}}),
    "a ticket that leaves its subject": pack({"claim": CLAIM | {"id": "0" * 30 + ".*"}}),
    "a ticket of a million crumbs": pack({"claim": CLAIM | {"chunks": 10**6}}),
    "a ticket of lists": pack({"claim": {"id": [], "chunks": [], "size": [], "sha256": []}}),
    "13 000 unknown keys": pack({f"k{n}": None for n in range(13_000)}),
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0" * 1000,
}


async def ask_raw(workers: Workers, payload: bytes) -> dict:
    nc = (await workers.bus()).client
    return unpack((await nc.request(SUBJECT, payload, timeout=20)).data)


async def goes_on(workers: Workers) -> bool:
    client = await workers.client()
    return (await client.transcribe(b"abc", timeout=5)).text == "3 bytes"


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
async def test_each_is_refused_by_code_and_the_worker_goes_on(payload, workers: Workers):
    await workers.start(seconds=0)
    error = (await ask_raw(workers, payload))["error"]
    assert error["code"] == "bad_request"
    assert len(error["message"]) < 600
    assert await goes_on(workers)


async def test_nine_megabytes_of_zeros_are_the_servers_to_refuse(workers: Workers):
    service = await workers.start(seconds=0)
    with pytest.raises((RuntimeError, ConnectionError)):
        await raw_publish(workers.server, SUBJECT, bytes(9 * 1024 * 1024), reply="_INBOX.x")
    assert await goes_on(workers)
    assert service.counts == {"ok": 1}


@pytest.mark.parametrize(
    "headers",
    [
        b"\r\n",
        b"N",
        b"NATS/1.0\r\nStt-Deadline\r\n\r\n",
        b"NATS/1.0 \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
        b"NATS/1.0\r\n" + b"A: b\r\n" * 500 + b"\r\n",
        b"NATS/1.0\r\nStt-Deadline: " + b"9" * 3000 + b"\r\n\r\n",
        b"NATS/1.0\r\nStt-Call-Id: " + b"x" * 3000 + b"\r\nStt-Request-Id: \xff\xff\r\n\r\n",
        os.urandom(200),
    ],
)
async def test_malformed_headers_are_answered_or_dropped(headers, workers: Workers):
    """A message that cannot be decoded takes the credit it came on: the next must be offered."""
    await workers.start(seconds=0)
    for _ in range(3):
        await raw_publish(
            workers.server, SUBJECT, pack({"audio": b"x"}), headers=headers, reply="_INBOX.x.y"
        )
    assert await goes_on(workers)


@pytest.mark.parametrize(
    "subject", [b"stt.control.cancel", b"stt.control.waiting", b"$SRV.PING.stt"]
)
@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"\x91" * 10_000, b"\x81\xa7call_id\xc6\x00\x00\x00\x01x", b"\x81\xa5model\x01"],
)
async def test_control_messages_may_be_anything(subject, payload, workers: Workers):
    await workers.start(seconds=0)
    await raw_publish(workers.server, subject, payload, reply="stt.control.cancel")
    await raw_publish(workers.server, subject, payload, reply="_INBOX.a.b")
    assert await goes_on(workers)


async def test_subjects_that_are_no_text_reach_nobody(workers: Workers):
    await workers.start(seconds=0)
    await raw_publish(workers.server, b"stt.v1.transcribe.\xff\xfe", b"x", reply="_INBOX.x")
    await raw_publish(workers.server, b"stt.control.\xff", b"x")
    assert await goes_on(workers)


async def test_a_flood_of_rubbish_leaves_every_slot_free(workers: Workers):
    service = await workers.start(seconds=0, slots=2)
    nc = (await workers.bus()).client
    answers: list[Msg] = []

    async def cb(msg: Msg) -> None:
        answers.append(msg)

    inbox = nc.new_inbox()
    await nc.subscribe(inbox, cb=cb)
    for n in range(500):
        await nc.publish(SUBJECT, os.urandom(n), reply=inbox)
    async with asyncio.timeout(30):
        await nc.flush()
    await until(lambda: len(answers) == 500)
    await until(lambda: service.credits.free == 2)
    assert await goes_on(workers)


wire = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.binary(),
        st.text(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["audio", "options", "stages", "stream", "cache", "format", "claim", "", "x"]


async def test_any_map_and_any_bytes_get_one_answer(workers: Workers):
    await workers.start(seconds=0)
    nc = (await workers.bus()).client
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(
        st.one_of(
            st.binary(max_size=300), st.dictionaries(st.sampled_from(KEYS), wire).map(_packed)
        )
    )
    def ask(payload: bytes) -> None:
        asking = asyncio.run_coroutine_threadsafe(nc.request(SUBJECT, payload, timeout=20), loop)
        reply = unpack(asking.result(6).data)
        assert ("error" in reply) != ("text" in reply)
        assert reply.get("error", {"code": "bad_request"})["code"] in {
            "bad_request",
            "deadline_exceeded",
        }

    await asyncio.to_thread(ask)
    assert await goes_on(workers)


def _packed(data: dict) -> bytes:
    try:
        return pack(data)
    except UnicodeEncodeError:  # lone surrogates have no bytes
        return b""
