"""Jobs over HTTP: what is answered at once, what is told, what is refused."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bus_worker.testing import segment
from gateway import sse
from tests.helpers.gateway import Gateway, form, gateway
from tests.helpers.hand import Hand
from tests.helpers.house import Workers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAV = ("file", b"RIFF" + bytes(1000), "hello.wav", "audio/wav")


@pytest_asyncio.fixture(loop_scope="module")
async def http(door: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller."""
    async with door.caller() as caller:
        yield caller


async def submit(http: httpx2.AsyncClient, *parts: Any, **headers: str) -> httpx2.Response:
    kind, body = form(*(parts or (WAV,)))
    return await http.post("/jobs", content=body, headers={**kind, **headers})


async def job(http: httpx2.AsyncClient) -> str:
    """A job that nobody has begun."""
    return str((await submit(http)).json()["job_id"])


def frames(text: str) -> list[dict[str, Any]]:
    """The events of a stream: id, event and data of each."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
        if "data" in lines:
            found.append({**lines, "data": json.loads(lines["data"])})
    return found


# --- handing in --------------------------------------------------------------------------------


async def test_a_recording_is_taken_and_found_again(http: httpx2.AsyncClient):
    answer = await submit(http, WAV, ("priority", b"high"), ("language", b"en"))
    said = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{said['job_id']}")
    assert (said["status"], said["priority"], said["progress"]) == ("queued", "high", 0.0)
    assert said["request_id"] == answer.headers["x-request-id"]
    again = await http.get(answer.headers["location"])
    assert (again.status_code, again.json()["job_id"]) == (200, said["job_id"])
    assert not {"claim", "fingerprint", "holder", "reply_to", "webhook"} & again.json().keys()


async def test_a_raw_body_of_more_than_a_request_may_have_is_taken(
    http: httpx2.AsyncClient, house: Workers
):
    answer = await http.post(
        "/jobs?priority=high", content=bytes(4_000_000), headers={"Content-Type": "audio/wav"}
    )
    assert (answer.status_code, answer.json()["priority"]) == (202, "high")
    js = (await house.bus()).client.jetstream()
    kept = await js.get_msg("STT_CLAIMS", (await js.stream_info("STT_CLAIMS")).state.last_seq)
    assert kept.data  # it stays when the request is over
    assert (kept.headers or {})["Nats-TTL"] == str(7 * 86_400)


async def test_a_recording_over_the_jobs_own_limit_is_refused(http: httpx2.AsyncClient):
    answer = await http.post(
        "/jobs", content=bytes(6_000_001), headers={"Content-Type": "audio/wav"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "too_large")
    assert error["details"]["maximum"] == 6_000_000


async def test_what_is_too_much_for_a_request_is_refused_with_the_address_that_takes_it(
    http: httpx2.AsyncClient,
):
    answer = await http.post(
        "/transcribe", content=bytes(2_000_001), headers={"Content-Type": "audio/wav"}
    )
    assert (answer.status_code, "POST /jobs" in answer.json()["error"]["message"]) == (413, True)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (("priority", b"highest"), "'priority': input should be 'high' or 'low'"),
        (("stream", b"true"), "unknown field 'stream'"),
        (("reply_to", b"stt.jobs.pretend.high"), "'reply_to': a subject under"),
        (("reply_to", b"stt.results.*"), "'reply_to': a subject under"),
        (("reply_to", b"stt.results.a b"), "'reply_to': a subject under"),
        (("webhook", b"x" * 2001), "'webhook': string should have at most 2000"),
        (("webhook", b"http://example.com/"), "'webhook' must be an https:// URL"),
        (("webhook", b"https://127.0.0.1/"), "'webhook' must not lead to 127.0.0.1"),
        (("beam_size", b"many"), "'beam_size': input should be a valid integer"),
    ],
    ids=lambda value: value[1][:20] if isinstance(value, tuple) else "",
)
async def test_a_field_that_is_wrong_is_refused_at_once(http, field, sentence):
    answer = await submit(http, field, WAV)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert sentence in answer.json()["error"]["message"]


async def test_a_model_that_no_queue_is_for_is_not_found(http: httpx2.AsyncClient):
    answer = await submit(http, WAV, ("model", b"large"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


# --- the same job ------------------------------------------------------------------------------


async def test_handed_in_again_under_its_key_it_is_the_same_job(http: httpx2.AsyncClient):
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first, again = await submit(http, **key), await submit(http, **key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["job_id"] == again.json()["job_id"]
    other = await submit(http, WAV, ("language", b"de"), **key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
async def test_a_key_that_is_none_is_refused(http: httpx2.AsyncClient, key: str):
    kind, body = form(WAV)
    headers = [*kind.items(), ("Idempotency-Key", key.encode())]
    answer = await http.post("/jobs", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_two_callers_with_one_idempotency_key_have_two_jobs(house: Workers):
    async with gateway(house.server.url, api_key="one,two") as door:
        ids = set()
        for key in ("one", "two", "one"):
            async with door.caller(headers={"X-API-Key": key, "Idempotency-Key": "mine"}) as http:
                ids.add((await submit(http)).json()["job_id"])
    assert len(ids) == 2


# --- looking, following ------------------------------------------------------------------------


async def test_a_job_that_is_done_brings_its_transcript(http: httpx2.AsyncClient, hand: Hand):
    job_id = await job(http)
    await hand.end(job_id, "done", segments=[segment("hello", 0, 1)], progress=1.0)
    said = (await http.get(f"/jobs/{job_id}")).json()
    assert (said["status"], said["result"]["text"]) == ("done", "hello")
    assert 0 < said["result"]["confidence"] <= 1


async def test_a_job_that_failed_says_why(http: httpx2.AsyncClient, hand: Hand):
    job_id = await job(http)
    why = {"code": "bad_audio", "message": "no audio", "retry": False, "details": {}}
    await hand.end(job_id, "failed", error=why)
    said = (await http.get(f"/jobs/{job_id}")).json()
    assert (said["status"], said["error"]) == ("failed", why)
    assert "result" not in said


async def test_events_come_numbered_and_go_on_where_they_were_cut(
    http: httpx2.AsyncClient, hand: Hand
):
    job_id = await job(http)
    await hand.windows(job_id, (1, [segment("b", 30, 31)]), (0, [segment("a", 0, 1)]))
    await hand.end(job_id, "done", segments=[])
    whole = await http.get(f"/jobs/{job_id}/events")
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert whole.text.startswith("retry: 1000\n\n")
    told = frames(whole.text)
    assert [one["event"] for one in told] == ["segments", "segments", "status"]
    assert [one["data"]["window"] for one in told] == [1, 0, None]
    assert told[0]["data"]["segments"][0]["text"] == "b"
    ids = [one["id"] for one in told]
    for asked in (
        {"headers": {"Last-Event-ID": ids[0]}},
        {"params": {"last_event_id": ids[0]}},
    ):
        rest = await http.get(f"/jobs/{job_id}/events", **asked)
        assert [one["id"] for one in frames(rest.text)] == ids[1:]
    over = await http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": ids[-1]})
    assert (over.status_code, over.text) == (204, "")  # or EventSource would ask for ever


async def test_events_of_a_job_that_goes_on_come_as_they_happen(
    http: httpx2.AsyncClient, hand: Hand, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sse, "BEAT", 0.05)
    job_id = await job(http)
    async with http.stream("GET", f"/jobs/{job_id}/events") as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(30):
            assert await anext(lines) == "retry: 1000"
            while await anext(lines) != ": working":
                pass
            await hand.windows(job_id, (0, [segment("a", 0, 1)]))
            while await anext(lines) != "event: segments":
                pass
            await hand.end(job_id, "cancelled")
            assert '"status":"cancelled"' in "".join([line async for line in lines])


async def test_a_job_erased_under_its_listener_ends_in_an_error(
    http: httpx2.AsyncClient, hand: Hand
):
    job_id = await job(http)
    async with http.stream("GET", f"/jobs/{job_id}/events") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await hand.results.erase(await hand.results.record(job_id))
        async with asyncio.timeout(30):
            assert '"code":"job_not_found"' in "".join([line async for line in lines])


async def test_who_hangs_up_is_followed_no_more(http: httpx2.AsyncClient, door: Gateway):
    def following() -> int:
        return sum(task.get_name() == "events" for task in asyncio.all_tasks())

    job_id = await job(http)
    async with door.line() as line:
        await line.say(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await line.reader.readuntil(b"retry: ")
        assert following() == 1
    await until(lambda: following() == 0)


# --- ending ------------------------------------------------------------------------------------


async def test_deleted_once_it_is_cancelled_and_deleted_again_it_is_gone(http: httpx2.AsyncClient):
    job_id = await job(http)
    cancelled = await http.delete(f"/jobs/{job_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    gone = await http.delete(f"/jobs/{job_id}")
    assert (gone.status_code, gone.text) == (204, "")
    for call in (http.get, http.delete):
        lost = await call(f"/jobs/{job_id}")
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("job_id", ["*", "%3E", "a.b", "x" * 65, "a%20b"])
async def test_what_is_no_jobs_id_reaches_no_subject(http: httpx2.AsyncClient, job_id: str):
    for call, path in ((http.get, ""), (http.delete, ""), (http.get, "/events")):
        answer = await call(f"/jobs/{job_id}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("given", ["-1", "a", "9" * 19])
async def test_what_is_no_events_id_is_refused(http: httpx2.AsyncClient, given: str):
    job_id = await job(http)
    answer = await http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": given})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_nobody_without_the_key_sees_a_job(house: Workers):
    async with gateway(house.server.url, api_key="hush") as door, door.caller() as http:
        assert (await submit(http)).status_code == 401
        for call, path in ((http.get, ""), (http.delete, ""), (http.get, "/events")):
            assert (await call(f"/jobs/abc{path}")).status_code == 401
