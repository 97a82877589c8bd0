"""A job's message in a worker's hand: nonsense fails at once, trouble is tried again, and nothing loops."""

from dataclasses import asdict
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker.claim_check import ClaimCheck, Deposit
from bus_worker.dead_letters import DeadLetters
from bus_worker.embedded import nats_server
from bus_worker.errors import Busy, Failed, JobNotFound, Unavailable
from bus_worker.job_record import JobRecord
from bus_worker.jobs import Limits, judging
from bus_worker.messages import Ticket, pack, unpack
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.results import Results
from tests.helpers.course import idle, kept_of
from tests.helpers.house import NAMES, Workers

NOWHERE = {"id": "0" * 32, "chunks": 1, "size": 5, "sha256": "0" * 64}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried soon."""
    monkeypatch.setattr(judging, "LONGEST", 0.02)
    monkeypatch.setattr(judging, "NOT_NOW", 0.02)


@pytest.fixture
async def nc(workers: Workers) -> Client:
    return (await workers.bus()).client


async def put(nc: Client, message: bytes | dict[str, Any], **headers: str) -> str:
    """Put a message into the queue of jobs by hand; the id that a job without one gets."""
    payload = message if isinstance(message, bytes) else pack(message)
    subject = NAMES.jobs("pretend", "low")
    kept = await nc.jetstream().publish(subject, payload, headers=headers or None)
    return f"STT_JOBS-{kept.seq}"


async def record(nc: Client, job_id: str) -> JobRecord:
    return await Results(nc, NAMES).record(job_id)


async def left(nc: Client, audio: bytes) -> Ticket:
    return await ClaimCheck(nc, NAMES).put(Deposit(), audio)


# --- written by hand -----------------------------------------------------------------------------


async def test_a_job_without_an_id_of_use_is_called_by_its_place(workers: Workers, nc: Client):
    await workers.start(jobs=Limits(), seconds=0.0)
    ids = ("a.b", "*", ">", "x" * 65, "a b", "")
    headers: list[dict[str, str]] = [{}, *({"Stt-Job-Id": job_id} for job_id in ids)]
    places = [await put(nc, {"audio": b"audio"}, **given) for given in headers]
    await idle(nc)
    for place in places:
        done = await record(nc, place)
        assert (done.status, done.attempts, done.request_id) == ("done", 1, place)
        assert (await Results(nc, NAMES).transcript(done))["text"] == "5 bytes"


def nonsense(other: Ticket) -> dict[str, tuple[bytes | dict[str, Any], str]]:
    """Messages that nobody should write, and the code of each one's failure."""
    audio, claim = {"audio": b"audio"}, {"claim": NOWHERE}
    found: dict[str, tuple[bytes | dict[str, Any], str]] = {
        "no msgpack": (b"\xff\xff", "bad_request"),
        "nothing": (b"", "bad_request"),
        "a list": (b"\x90", "bad_request"),
        "cut short": (pack(audio)[:-1], "bad_request"),
        "audio and claim": (audio | claim, "bad_request"),
        "neither": ({}, "bad_request"),
        "an unknown field": (audio | {"more": 1}, "bad_request"),
        "beams": (audio | {"options": {"beam_size": 999}}, "bad_request"),
        "heat": (audio | {"options": {"temperature": float("nan")}}, "bad_request"),
        "a stage that is not there": (audio | {"stages": {"none": {"a": 1}}}, "bad_request"),
        "a stage's option": (audio | {"stages": {"pretend": {"segments": 0}}}, "bad_request"),
        "a claim that is gone": (claim, "claim_expired"),
        "a claim in pieces": ({"claim": NOWHERE | {"chunks": 10**9}}, "bad_request"),
        "a giant in pieces": (
            {"claim": NOWHERE | {"size": 1 << 50, "chunks": 1 << 38}},
            "bad_request",
        ),
        "a wild claim": ({"claim": NOWHERE | {"id": "*"}}, "bad_request"),
        "a giant claim": ({"claim": NOWHERE | {"size": 1 << 50}}, "too_large"),
        "other bytes": ({"claim": asdict(other) | {"sha256": "0" * 64}}, "bad_request"),
    }
    for subject in (
        "$JS.API.STREAM.DELETE.STT_JOBS", "_INBOX.>", "_INBOX.*", "_INBOX.a b", "_INBOX.", "_INBOX",
        "stt.jobs.pretend.low", "stt.control.cancel", "other.results.x", "stt.results.a\r\nPUB", "", 7,
    ):  # fmt: skip
        found[f"told {subject!r}"] = (audio | {"reply_to": subject}, "bad_request")
    for url in (
        "http://hooks.example/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://0x7f.1/",
        "https://169.254.169.254/latest", "ftp://hooks.example/", "x", "https://u:p@hooks.example/", b"x",
    ):  # fmt: skip
        found[f"webhook {url!r}"] = (audio | {"webhook": url}, "bad_request")
    return found


async def test_nonsense_fails_once_and_is_kept_with_its_reason(workers: Workers, nc: Client):
    await workers.start(jobs=Limits(), seconds=0.0)
    heard: list[Msg] = []

    async def cb(msg: Msg) -> None:
        heard.append(msg)

    for subject in ("_INBOX.a", "other.>", "stt.control.>", "stt.results.>"):
        await nc.subscribe(subject, cb=cb)
    cases = nonsense(await left(nc, b"audio"))
    places = {name: await put(nc, message) for name, (message, _) in cases.items()}
    await idle(nc)
    found = {name: await record(nc, place) for name, place in places.items()}
    assert {name: (one.error or {}).get("code") for name, one in found.items()} == {
        name: code for name, (_, code) in cases.items()
    }
    assert {(one.status, one.attempts, one.failures) for one in found.values()} == {
        ("failed", 1, 0)
    }
    dead = DeadLetters(nc, NAMES)
    for name, (message, code) in cases.items():
        letter = await dead.get(places[name])
        assert letter.message == (message if isinstance(message, bytes) else pack(message))
        assert letter.reason["code"] == code
    assert not heard
    assert (await nc.jetstream().stream_info("STT_WEBHOOKS")).state.last_seq == 0
    good = await put(nc, {"audio": b"audio"})
    await idle(nc)
    assert (await record(nc, good)).status == "done"


async def test_a_message_that_leaves_no_room_for_the_reason_fails_once():
    async with (
        nats_server(default_model="pretend", max_payload=200_000) as server,
        Workers(server) as workers,
    ):
        await workers.start(jobs=Limits(), seconds=0.0)
        nc = (await workers.bus()).client
        around = len(pack({"audio": bytes(100_000), "more": 1})) - 100_000
        place = await put(nc, {"audio": bytes(200_000 - around), "more": 1})
        await idle(nc)
        failed = await record(nc, place)
        assert (failed.status, failed.attempts, failed.told) == ("failed", 1, True)
        letter = await DeadLetters(nc, NAMES).get(place)
        assert (letter.reason["code"], letter.message) == ("bad_request", b"")


async def test_who_can_be_told_of_a_bad_job_is_told(workers: Workers, nc: Client):
    await workers.start(jobs=Limits(), seconds=0.0)
    inbox = nc.new_inbox()
    sub = await nc.subscribe(inbox)
    for wrong in (
        {"options": {"beam_size": 999}}, {"webhook": "http://127.0.0.1/"}, {"claim": NOWHERE},
        {"more": 1}, {"stages": {str(n): {} for n in range(40)}},
    ):  # fmt: skip
        await put(nc, {"audio": b"audio", "reply_to": inbox, **wrong})
        assert unpack((await sub.next_msg(10)).data)["error"]["code"] == "bad_request"


async def test_a_webhook_is_told_of_a_job_whose_reply_to_is_bad(workers: Workers, nc: Client):
    await workers.start(jobs=Limits(), seconds=0.0)
    url = "https://hooks.invalid/"
    place = await put(nc, {"audio": b"a", "reply_to": "$SYS.REQ", "webhook": url})
    await idle(nc)
    failed = await record(nc, place)
    assert (failed.status, failed.reply_to, failed.webhook) == ("failed", None, url)
    assert (await nc.jetstream().stream_info("STT_WEBHOOKS")).state.last_seq == 1


# --- tried again ---------------------------------------------------------------------------------


def failing(times: int, error: Exception) -> Stage:
    """A stage that fails so often before it hears."""
    asked = 0

    @stage(gives=("segments", "text"))
    async def failing(draft: Draft, _: NoOptions) -> None:
        """Fail, then hear."""
        nonlocal asked
        asked += 1
        if asked <= times:
            raise error
        draft.text = f"asked {asked} times"

    return failing


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), Failed("the model failed")], ids=str)
async def test_work_that_fails_is_tried_five_times(workers: Workers, nc: Client, error: Exception):
    await workers.start(failing(99, error), jobs=Limits())
    client = await workers.client()
    job = await client.submit(b"audio")
    with pytest.raises(Failed):
        await job.result(30)
    await idle(nc)
    status = await job.status()
    assert (status.attempts, status.failures) == (5, 5)
    letter = await DeadLetters(nc, NAMES).get(job.id)
    assert (letter.reason["code"], unpack(letter.message)["audio"]) == ("failed", b"audio")
    assert letter.record["failures"] == 5


async def test_work_that_fails_twice_and_then_does_not_is_done(workers: Workers, nc: Client):
    await workers.start(failing(2, RuntimeError("a mistake")), jobs=Limits())
    job = await (await workers.client()).submit(b"audio")
    assert (await job.result(30)).text == "asked 3 times"
    await idle(nc)
    status = await job.status()
    assert (status.attempts, status.failures, status.error) == (3, 2, None)
    with pytest.raises(JobNotFound):
        await DeadLetters(nc, NAMES).get(job.id)
    assert await kept_of(nc, job.id, but=("text-",)) == {"status"}


@pytest.mark.parametrize("error", [Busy(), Unavailable("not now")], ids=["busy", "unavailable"])
async def test_what_is_only_not_possible_now_counts_nothing(
    workers: Workers, nc: Client, error: Exception
):
    await workers.start(failing(7, error), jobs=Limits())
    job = await (await workers.client()).submit(b"audio")
    assert (await job.result(30)).text == "asked 8 times"
    status = await job.status()
    assert (status.attempts, status.failures) == (8, 0)
