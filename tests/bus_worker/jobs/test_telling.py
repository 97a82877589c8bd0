"""A job's end, told: on a subject as a reply would be, to a webhook once, to nobody who may not hear it."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.testing import capture_logs

from bus_worker import streams, webhook
from bus_worker.client import Job
from bus_worker.embedded import nats_server
from bus_worker.errors import BadAudio, Cancelled
from bus_worker.jetstream import if_last
from bus_worker.jobs import Limits
from bus_worker.messages import pack, unpack
from bus_worker.results import Results
from bus_worker.streams import make_streams
from bus_worker.testing import pretend
from bus_worker.webhook_rules import WebhookRules
from plugins.decode import decode
from tests.helpers.house import NAMES, Workers, until
from tests.helpers.tones import noise, wav_bytes

CLIP = wav_bytes(noise(0.4))
SLOW = {"pretend": {"seconds": 30.0}}
HERE = WebhookRules.read(None, ("127.0.0.1",))
OF_THE_CALL = {"request_id", "timings", "real_time_factor"}


@dataclass
class Receiver:
    """A web server; what it answers may be said, a status after the other."""

    url: str = ""
    answers: list[str] = field(default_factory=list)
    heard: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)

    async def read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        self.heard.append((headers, json.loads(body)))
        status = self.answers.pop(0) if self.answers else "200 OK"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        writer.close()

    async def told(self, times: int = 1) -> dict[str, Any]:
        """The body that was posted last, once there were so many."""
        await until(lambda: len(self.heard) == times, 30)
        return self.heard[-1][1]


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    here = Receiver()
    server = await asyncio.start_server(here.read, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/told"
    async with server:
        yield here


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook is told again soon, and twice at most."""
    monkeypatch.setattr(webhook, "BACK_OFF", (0.05, 0.05))


async def worker(workers: Workers, rules: WebhookRules = HERE) -> None:
    await workers.start(
        decode, pretend, seconds=0.0, slots=2, jobs=Limits(), rules=rules,
        options={"decode": {"max_duration": 30.0}},
    )  # fmt: skip


async def replies(nc: Client) -> tuple[str, "asyncio.Queue[Msg]"]:
    """A subject, and what is told there."""
    heard: asyncio.Queue[Msg] = asyncio.Queue()

    async def cb(msg: Msg) -> None:
        heard.put_nowait(msg)

    inbox = nc.new_inbox()
    await nc.subscribe(inbox, cb=cb)
    await nc.flush()
    return inbox, heard


async def cancelled(job: Job) -> None:
    """Cancel it once a worker is at it."""
    async with asyncio.timeout(30):
        while (await job.status()).status != "running":  # noqa: ASYNC110 - the record is on the bus
            await asyncio.sleep(0.02)
    await job.cancel()


async def webhooks_wait(nc: Client) -> int:
    return int((await nc.jetstream().stream_info("STT_WEBHOOKS")).state.messages)


async def all_told(nc: Client) -> None:
    """Wait until no webhook waits to be told."""
    async with asyncio.timeout(30):
        while await webhooks_wait(nc):  # noqa: ASYNC110 - the queue is the server's
            await asyncio.sleep(0.02)


# --- on a subject --------------------------------------------------------------------------------


async def test_a_subject_is_told_what_a_reply_to_a_request_says(workers: Workers):
    await worker(workers)
    client, nc = await workers.client(), (await workers.bus()).client
    inbox, heard = await replies(nc)

    async def told(job: Job) -> dict[str, Any]:
        async with asyncio.timeout(30):
            msg = await heard.get()
        assert msg.headers is not None
        assert msg.headers["Stt-Job-Id"] == job.id
        assert msg.headers["Stt-Request-Id"] == "mine"
        return unpack(msg.data)

    async def replied(audio: bytes) -> dict[str, Any]:
        return unpack((await nc.request(NAMES.transcribe("pretend"), pack({"audio": audio}))).data)

    asked: dict[str, Any] = {"reply_to": inbox, "request_id": "mine"}
    done = await told(await client.submit(CLIP, **asked))
    reply = await replied(CLIP)
    assert set(done) == set(reply)
    assert {k: v for k, v in done.items() if k not in OF_THE_CALL} == {
        k: v for k, v in reply.items() if k not in OF_THE_CALL
    }
    assert await told(await client.submit(b"noise", **asked)) == await replied(b"noise")
    slow = await client.submit(CLIP, stages=SLOW, **asked)
    await cancelled(slow)
    assert (await told(slow))["error"]["code"] == Cancelled.code
    assert heard.empty()


async def test_a_transcript_too_large_for_a_message_is_named_by_its_jobs_id():
    async with (
        nats_server(default_model="pretend", max_payload=300_000) as server,
        Workers(server) as workers,
    ):
        await workers.start(seconds=0.0, jobs=Limits())
        client = await workers.client()
        inbox, heard = await replies((await workers.bus()).client)
        job = await client.submit(b"a", reply_to=inbox, stages={"pretend": {"segments": 4000}})
        async with asyncio.timeout(30):
            msg = await heard.get()
        error = unpack(msg.data)["error"]
        assert error["code"] == "too_large"
        assert "fetch it by the job's id" in error["message"]
        assert msg.headers is not None
        assert msg.headers["Stt-Job-Id"] == job.id
        assert len((await job.transcript()).segments) == 4000
        # Its one event would have been too large, too: who follows the text gets it all the same.
        assert [one.id async for one in job.segments()] == list(range(4000))


# --- a webhook -----------------------------------------------------------------------------------


async def test_a_webhook_is_told_of_each_kind_of_end(workers: Workers, hooks: Receiver):
    await worker(workers)
    client, nc = await workers.client(), (await workers.bus()).client
    done = await client.submit(CLIP, webhook=hooks.url)
    body = await hooks.told(1)
    assert set(body) == {"type", "timestamp", "data"}
    assert body["type"] == "job.done"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    status, result = (await done.status()).to_map(), await done.transcript()
    assert body["data"] == {**status, "result": json.loads(json.dumps(result.to_map()))}
    headers = hooks.heard[0][0]
    assert headers["webhook-id"] == f"{done.id}-done"
    assert (headers["stt-event"], headers["content-type"]) == ("done", "application/json")

    failed = await client.submit(b"noise", webhook=hooks.url)
    body = await hooks.told(2)
    assert (body["type"], body["data"]["job_id"]) == ("job.failed", failed.id)
    assert body["data"]["error"]["code"] == BadAudio.code
    assert "result" not in body["data"]

    slow = await client.submit(CLIP, webhook=hooks.url, stages=SLOW)
    await cancelled(slow)
    body = await hooks.told(3)
    assert (body["type"], body["data"]["status"]) == ("job.cancelled", "cancelled")
    assert "result" not in body["data"]
    await all_told(nc)
    assert len(hooks.heard) == 3


async def test_a_receiver_in_trouble_is_told_again_under_the_same_id(
    workers: Workers, hooks: Receiver, hurried: None
):
    await worker(workers)
    client, nc = await workers.client(), (await workers.bus()).client
    hooks.answers = ["500 No"]
    await client.submit(CLIP, webhook=hooks.url)
    await hooks.told(2)
    (first, body), (second, same) = hooks.heard
    assert first["webhook-id"] == second["webhook-id"]
    assert (first["stt-attempt"], second["stt-attempt"]) == ("1", "2")
    assert body == same
    await all_told(nc)
    assert len(hooks.heard) == 2


@pytest.mark.parametrize(
    ("answers", "times", "why"),
    [
        (["302 X\r\nLocation: {url}/elsewhere"], 1, "a redirect, and none is followed"),
        (["410 Gone"], 1, "answered 410"),
        (["500 No"] * 5, 3, "answered 500"),
    ],
    ids=["redirect", "gone", "always in trouble"],
)
async def test_a_receiver_that_will_not_be_told_is_given_up(  # noqa: PLR0917
    workers: Workers, hooks: Receiver, hurried: None, answers: list[str], times: int, why: str
):
    await worker(workers)
    client, nc = await workers.client(), (await workers.bus()).client
    hooks.answers = [answer.format(url=hooks.url) for answer in answers]
    with capture_logs() as lines:
        job = await client.submit(CLIP, webhook=hooks.url)
        await job.result(30)
        await hooks.told(times)
        await all_told(nc)
    (line,) = [line for line in lines if line["event"] == "webhook_given_up"]
    assert why in line["why"]
    assert line["attempts"] == len(hooks.heard) == times
    assert (await job.status()).status == "done"


async def test_a_name_that_leads_inside_is_never_called(
    workers: Workers, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
):
    port = int(hooks.url.rpartition(":")[2].partition("/")[0])
    look_up = socket.getaddrinfo

    def inside(host: Any, *args: Any, **more: Any) -> Any:
        if host != "hooks.example":
            return look_up(host, *args, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", inside)
    await worker(workers, WebhookRules())
    client, nc = await workers.client(), (await workers.bus()).client
    with capture_logs() as lines:
        job = await client.submit(CLIP, webhook=f"https://hooks.example:{port}/")
        await job.result(30)
        async with asyncio.timeout(30):
            while not any(line["event"] == "webhook_given_up" for line in lines):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await all_told(nc)
    (line,) = [line for line in lines if line["event"] == "webhook_given_up"]
    assert line["why"] == "hooks.example stands for no public address"
    assert hooks.heard == []


async def test_who_erased_a_job_hears_no_more_of_it(
    workers: Workers, hooks: Receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhook, "BACK_OFF", (0.5,) * 8)
    await worker(workers)
    client, nc = await workers.client(), (await workers.bus()).client
    hooks.answers = ["500 No"] * 9
    job = await client.submit(CLIP, webhook=hooks.url)
    await hooks.told(1)
    assert await webhooks_wait(nc) == 1
    await job.erase()
    await all_told(nc)
    assert len(hooks.heard) == 1
    assert (known := await Results(nc, NAMES).known(job.id)) is not None
    assert known.record.webhook is None


@pytest.mark.parametrize("record", [b"\xc1 garbage", pack({"job_id": "j", "model": []})])
async def test_what_cannot_be_read_is_buried_and_said_once(
    workers: Workers, hooks: Receiver, record: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.2)
    nc = (await workers.bus()).client
    await make_streams(nc, NAMES, "pretend")
    js = Results(nc, NAMES).js
    await js.write("STT_STATE", NAMES.state("j", "status"), record, if_last(0))
    for told in (pack({"job_id": "j", "url": hooks.url, "kind": "done"}), b"\xc1", pack({})):
        await js.write(NAMES.webhooks_stream, NAMES.webhooks, told)
    with capture_logs() as lines:
        await worker(workers)
        await all_told(nc)
    assert [line["event"] for line in lines if "webhook" in line["event"]] == ["webhook_buried"] * 3
    assert hooks.heard == []
