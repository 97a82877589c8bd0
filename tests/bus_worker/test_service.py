"""Request-reply: deadlines, cancellation, heartbeats, drain, and one answer whatever happens."""

import asyncio
import contextlib
import json
import sys
import time

import pytest
from nats.aio.msg import Msg
from pydantic import BaseModel

from bus_worker import errors
from bus_worker.messages import pack, unpack
from bus_worker.plugin import Draft, stage
from bus_worker.testing import pretend
from tests.helpers.house import Workers, until

SUBJECT = "stt.v1.transcribe.pretend"


async def exchange(
    workers: Workers, data: bytes, count: int = 1, limit: float = 5, **headers: str
) -> list[Msg]:
    """Publish a request and take so many messages of its answer."""
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    got: asyncio.Queue[Msg] = asyncio.Queue()

    async def cb(msg: Msg) -> None:
        got.put_nowait(msg)

    await nc.subscribe(inbox, cb=cb)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    await nc.publish(SUBJECT, data, reply=inbox, headers=named or None)
    async with asyncio.timeout(limit):
        return [await got.get() for _ in range(count)]


async def error_of(workers: Workers, data: bytes, **headers: str) -> dict:
    (msg,) = await exchange(workers, data, **headers)
    error = unpack(msg.data)["error"]
    assert msg.headers["Nats-Service-Error"] == error["message"][:200].strip()
    assert int(msg.headers["Nats-Service-Error-Code"]) >= 400
    return error


async def test_a_plain_request_gets_one_answer(workers: Workers):
    await workers.start(seconds=0)
    (msg,) = await exchange(workers, pack({"audio": b"1234"}))
    reply = unpack(msg.data)
    assert reply["text"] == "4 bytes"
    assert msg.headers == {"Content-Type": "application/vnd.msgpack"}
    assert {"request_id", "segments", "model", "timings", "real_time_factor", "worker_id"} <= set(
        reply
    )
    assert "words" not in reply["segments"][0]


@pytest.mark.parametrize(
    "kind",
    ["application/vnd.msgpack", "application/msgpack", "application/x-msgpack; charset=binary"],
)
async def test_the_media_types_in_use_are_taken(kind, workers: Workers):
    await workers.start(seconds=0)
    (msg,) = await exchange(workers, pack({"audio": b"1"}), Content_Type=kind)
    assert "text" in unpack(msg.data)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Content_Type": "application/json"}, "Content-Type"),
        ({"Stt_Deadline": "tomorrow"}, "Stt-Deadline"),
        ({"Stt_Deadline": "nan"}, "Stt-Deadline"),
        ({"Stt_Deadline": "1e999"}, "Stt-Deadline"),
        ({"Stt_Heartbeat": "0"}, "Stt-Heartbeat"),
        ({"Stt_Heartbeat": "-1"}, "Stt-Heartbeat"),
    ],
)
async def test_a_wrong_header_is_named(headers, says, workers: Workers):
    await workers.start(seconds=0)
    error = await error_of(workers, pack({"audio": b"1"}), **headers)
    assert error["code"] == "bad_request"
    assert says in error["message"]


async def test_a_request_that_comes_too_late_is_not_begun(workers: Workers):
    service = await workers.start(seconds=0)
    past = str(int((time.time() - 1) * 1000))
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Deadline=past)
    assert error["code"] == "deadline_exceeded"
    assert error["retry"] is True
    assert service.counts["ok"] == 0


async def test_work_past_its_deadline_is_answered_then(workers: Workers):
    service = await workers.start(seconds=30)
    soon = str(int((time.time() + 0.2) * 1000))
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Deadline=soon)
    assert error["code"] == "deadline_exceeded"
    await until(lambda: service.credits.free == 1)


async def test_a_request_without_a_deadline_has_the_workers_own(workers: Workers):
    await workers.start(seconds=30, request_timeout=0.2)
    assert (await error_of(workers, pack({"audio": b"1"})))["code"] == "deadline_exceeded"


async def test_a_stuck_thread_keeps_its_slot_but_not_its_caller(workers: Workers):
    service = await workers.start(stubborn=0.8)
    began = time.monotonic()
    soon = str(int((time.time() + 0.2) * 1000))
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Deadline=soon)
    assert error["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 0.7
    assert service.credits.busy == 1
    assert service.credits.free == 0
    await until(lambda: service.stuck_for() > 0.1)
    await until(lambda: service.credits.free == 1)
    assert service.stuck_for() == 0


async def test_heartbeats_come_at_once_and_go_on(workers: Workers):
    await workers.start(seconds=0.35)
    got = await exchange(workers, pack({"audio": b"1"}), 4, Stt_Heartbeat="0.1")
    assert ["working" in unpack(m.data) for m in got] == [True] * 4


async def test_a_cancel_that_overtakes_its_request_holds(workers: Workers):
    """The two come on two subscriptions: sent in one breath, the cancel was read first, and the work done."""
    service = await workers.start(seconds=5)
    nc = (await workers.bus()).client
    for number in range(5):
        headers = {"Stt-Call-Id": f"left-{number}"}
        await nc.publish(
            "stt.v1.transcribe.pretend", pack({"audio": b"x"}), reply="_INBOX.a.b", headers=headers
        )
        await nc.publish("stt.control.cancel", pack({"call_id": f"left-{number}"}))
        await nc.flush()
        await until(lambda done=number + 1: service.counts["cancelled"] == done)
        await until(lambda: not service.credits.busy)
        await service._bus.confirmed()  # the server has the credit: else nobody takes the next one


async def test_cancel_ends_the_work_and_every_worker_answers(workers: Workers):
    services = [await workers.start(seconds=30), await workers.start(seconds=30)]
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    got: list[Msg] = []

    async def cb(msg: Msg) -> None:
        got.append(msg)

    await nc.subscribe(inbox, cb=cb)
    headers = {"Stt-Call-Id": "abc"}
    await nc.publish(SUBJECT, pack({"audio": b"1"}), reply=inbox, headers=headers)
    await until(lambda: sum(s.credits.busy for s in services) == 1)
    await nc.publish("stt.control.cancel", pack({"call_id": "abc"}), reply=inbox)
    await until(lambda: len(got) == 3)
    replies = [unpack(m.data) for m in got]
    assert sorted(r["cancelled"] for r in replies if "cancelled" in r) == [False, True]
    assert [r["error"]["code"] for r in replies if "error" in r] == ["cancelled"]
    await until(lambda: all(s.credits.free == 1 for s in services))


async def test_a_call_asked_again_while_it_runs_is_answered_once(workers: Workers):
    service = await workers.start(seconds=0.3, slots=2)
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    got: list[Msg] = []

    async def cb(msg: Msg) -> None:
        got.append(msg)

    await nc.subscribe(inbox, cb=cb)
    for _ in range(2):
        await nc.publish(SUBJECT, pack({"audio": b"1"}), reply=inbox, headers={"Stt-Call-Id": "x"})
        await nc.flush()
    await asyncio.sleep(0.6)
    assert len(got) == 1
    assert service.counts == {"ok": 1}


async def test_a_waiter_hears_of_room_the_moment_it_comes(workers: Workers):
    service = await workers.start(seconds=0.15)
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    told: asyncio.Queue[Msg] = asyncio.Queue()

    async def cb(msg: Msg) -> None:
        told.put_nowait(msg)

    await nc.subscribe(inbox, cb=cb)
    await nc.publish(SUBJECT, pack({"audio": b"1"}), reply="_INBOX.nobody.cares")
    await until(lambda: service.credits.busy == 1)
    await nc.publish("stt.control.waiting", pack({"model": "other"}), reply=inbox)
    await nc.publish("stt.control.waiting", pack({"model": "pretend"}), reply=inbox)
    async with asyncio.timeout(30):
        assert unpack((await told.get()).data)["free"] == 1
    assert service.credits.free == 1
    assert told.empty()


async def test_a_caller_who_had_to_wait_takes_back_its_hint_when_served(workers: Workers):
    service = await workers.start(seconds=0.15)
    nc = (await workers.bus()).client
    heard: list[tuple[str, dict]] = []

    async def cb(msg: Msg) -> None:
        heard.append((msg.reply, unpack(msg.data)))

    await nc.subscribe("stt.control.waiting", cb=cb)
    await nc.flush()
    client = await workers.client()
    await asyncio.gather(client.transcribe(b"1"), client.transcribe(b"2"))
    await until(lambda: bool(heard) and "over" in heard[-1][1])
    assert heard[-1][1] == {"model": "pretend", "over": True}
    assert {inbox for inbox, _ in heard} == {heard[-1][0]}
    await until(lambda: not service.waiting._until)


@pytest.mark.parametrize("reply", ["", "stt.control.cancel", "$JS.API.STREAM.PURGE.X"])
async def test_nobody_makes_a_worker_publish_outside_inboxes(reply, workers: Workers):
    service = await workers.start(seconds=0)
    nc = (await workers.bus()).client
    seen: list[Msg] = []

    async def cb(msg: Msg) -> None:
        seen.append(msg)

    if reply:
        await nc.subscribe(reply, cb=cb)
    await nc.publish(SUBJECT, pack({"audio": b"1"}), reply=reply)
    await until(lambda: service.counts["unanswerable"] == 1)
    assert seen == []
    await until(lambda: service.credits.free == 1)


async def test_a_stopping_worker_finishes_what_it_has(workers: Workers):
    service = await workers.start(seconds=0.3)
    client = await workers.client()
    call = asyncio.create_task(client.transcribe(b"123"))
    await until(lambda: service.credits.busy == 1)
    await service.stop(5)
    assert (await call).text == "3 bytes"


async def test_a_worker_in_a_hurry_sends_its_callers_elsewhere(workers: Workers):
    service = await workers.start(seconds=30)
    client = await workers.client()
    call = asyncio.create_task(client.transcribe(b"123", stages={"pretend": {"seconds": 0.4}}))
    await until(lambda: service.credits.busy == 1)
    await workers.start()
    await service.stop(0.05)
    transcript = await call
    assert transcript.worker_id == "w2"


@pytest.mark.parametrize("stubborn", [0, 1], ids=["willing", "stuck"])
async def test_a_request_queued_behind_another_hears_too_that_the_worker_leaves(
    workers: Workers, stubborn: float
):
    service = await workers.start(seconds=30, stubborn=stubborn)
    first = asyncio.create_task(exchange(workers, pack({"audio": b"1"})))
    await until(lambda: service.credits.busy == 1)
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    sub = await nc.subscribe(inbox)
    # As the server slips one in between a credit and its limit.
    service.credits._take(Msg(nc, SUBJECT, inbox, pack({"audio": b"2"})))
    await service.stop(0.05)
    for msg in (*await first, await sub.next_msg(5)):
        assert unpack(msg.data)["error"]["code"] == "stopping"
    assert service.stuck_for() > 0 or not stubborn


class Nothing(BaseModel):
    pass


@stage(Nothing, gives=("text",))
async def broken(draft: Draft, options: Nothing) -> None:
    """Fail as somebody's code does."""
    raise KeyError("/secret/path")


@stage(Nothing, gives=("text",))
async def sleepy(draft: Draft, options: Nothing) -> None:
    """Sleep past any deadline."""
    await asyncio.sleep(60)


@stage(Nothing, gives=("text",))
async def refusing(draft: Draft, options: Nothing) -> None:
    """Refuse as a stage may."""
    raise errors.BadAudio("this is a picture", seen="png")


async def test_a_failing_stage_is_named_and_its_insides_are_not(workers: Workers):
    await workers.start(broken)
    (msg,) = await exchange(workers, pack({"audio": b"1"}))
    error = unpack(msg.data)["error"]
    assert error["code"] == "failed"
    assert error["details"] == {"stage": "broken"}
    assert "broken" in error["message"]
    assert b"secret" not in msg.data
    assert b"KeyError" not in msg.data


async def test_a_stages_own_error_comes_through(workers: Workers):
    await workers.start(refusing)
    error = await error_of(workers, pack({"audio": b"1"}))
    assert error == {
        "code": "bad_audio",
        "message": "this is a picture",
        "retry": False,
        "details": {"seen": "png", "stage": "refusing"},
    }


async def test_an_async_stage_that_sleeps_is_ended_at_the_deadline(workers: Workers):
    service = await workers.start(sleepy)
    soon = str(int((time.time() + 0.2) * 1000))
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Deadline=soon)
    assert error["code"] == "deadline_exceeded"
    await until(lambda: service.credits.free == 1)


async def test_an_option_of_the_operators_is_refused_by_name(workers: Workers):
    await workers.start(pretend, refusing)
    for stages, says in [
        ({"pretend": {"spread": 1.0}}, "stages.pretend.spread' is the operator's"),
        ({"pretend": {"nope": 1}}, "stages.pretend.nope' does not exist"),
        ({"whisper": {}}, "not in this worker's pipeline"),
        ({"pretend": {"seconds": -1}}, "stages.pretend.seconds"),
    ]:
        error = await error_of(workers, pack({"audio": b"1", "stages": stages}))
        assert error["code"] == "bad_request"
        assert says in error["message"]


async def test_too_large_an_upload_is_refused_with_both_numbers(workers: Workers):
    await workers.start()
    client = await workers.client()
    service = await workers.start(model="small")
    object.__setattr__(service._transcriber, "max_bytes", 100)
    with pytest.raises(errors.TooLarge, match=r"101 bytes.*100"):
        await client.transcribe(bytes(101), model="small")


async def test_discovery_answers_as_nats_services_do(workers: Workers):
    service = await workers.start(seconds=0)
    client = await workers.client()
    await client.transcribe(b"1")
    nc = (await workers.bus()).client
    for name in ("", ".stt", ".stt.w1"):
        ping = json.loads((await nc.request(f"$SRV.PING{name}", b"", timeout=20)).data)
        assert ping == {
            "type": "io.nats.micro.v1.ping_response",
            "name": "stt",
            "id": "w1",
            "version": "0.1.0",
            "metadata": {"model": "pretend", "revision": "", "slots": "1"},
        }
    info = json.loads((await nc.request("$SRV.INFO.stt", b"", timeout=20)).data)
    (endpoint,) = info["endpoints"]
    assert endpoint["subject"] == SUBJECT
    assert endpoint["metadata"] == {}
    stats = json.loads((await nc.request("$SRV.STATS.stt", b"", timeout=20)).data)
    (endpoint,) = stats["endpoints"]
    assert endpoint["num_requests"] == 1
    assert endpoint["num_errors"] == 0
    assert endpoint["data"]["slots"] == 1
    assert endpoint["data"]["answers"] == {"ok": 1}
    assert service.stats()["data"]["in_flight"] == 0


async def test_the_mapped_subject_reaches_the_default_model(workers: Workers):
    await workers.start(seconds=0)
    nc = (await workers.bus()).client
    msg = await nc.request("stt.v1.transcribe", pack({"audio": b"12"}), timeout=20)
    assert unpack(msg.data)["text"] == "2 bytes"


@stage(Nothing, gives=("text",))
async def careless(draft: Draft, options: Nothing) -> None:
    """Leave what is no plain data, and fields with the log's own names."""
    draft.note("event", "mine")
    draft.note("outcome", "mine")
    draft.language = object()


@stage(Nothing, gives=("text",))
async def careless_refusal(draft: Draft, options: Nothing) -> None:
    """Refuse with details that no wire carries."""
    raise errors.BadAudio("no", event=object(), outcome="y")


async def test_a_careless_plugin_still_gets_its_caller_one_answer(workers: Workers):
    await workers.start(careless)
    assert (await error_of(workers, pack({"audio": b"1"})))["code"] == "failed"
    await workers.start(careless_refusal, model="other")
    client = await workers.client(model="other")
    with pytest.raises(errors.BadAudio, match="no"):
        await client.transcribe(b"1", timeout=3)


@stage(Nothing, gives=("text",))
async def clinging(draft: Draft, options: Nothing) -> None:
    """Refuse to be cancelled."""
    end = time.monotonic() + 1.0
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


async def test_a_stage_that_refuses_to_be_cancelled_counts_as_stuck(workers: Workers):
    service = await workers.start(clinging)
    soon = str(int((time.time() + 0.1) * 1000))
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Deadline=soon)
    assert error["code"] == "deadline_exceeded"
    await until(lambda: service.stuck_for() > 0.1)
    assert service.credits.free == 0
    await until(lambda: service.credits.free == 1)
    assert service.stuck_for() == 0


@stage(Nothing, gives=("text",))
async def awaits_cancelled(draft: Draft, options: Nothing) -> None:
    """Await something that was cancelled, as a timed-out call of a library is."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@stage(Nothing, gives=("text",))
async def exits(draft: Draft, options: Nothing) -> None:
    """Leave, as a library made for the command line does."""
    sys.exit(3)


@stage(Nothing, gives=("text",))
def exits_in_a_thread(draft: Draft, options: Nothing) -> None:
    """The same, in a thread."""
    sys.exit(3)


@pytest.mark.parametrize("bad", [awaits_cancelled, exits, exits_in_a_thread], ids=lambda s: s.name)
async def test_a_stage_that_ends_strangely_is_a_failed_stage(bad, workers: Workers):
    service = await workers.start(bad)
    for _ in range(2):
        error = await error_of(workers, pack({"audio": b"1"}))
        assert error["code"] == "failed"
        assert error["details"] == {"stage": bad.name}
    assert service.counts == {"failed": 2}


@stage(Nothing, gives=("text",))
async def noisy(draft: Draft, options: Nothing) -> None:
    """Leave notes that no log line can hold."""
    draft.text = "fine"
    for name in ("self", "event", "request_id", "level", "exc_info"):
        draft.note(name, 1)
    draft.notes[5] = object()
    draft.spans["x"] = "long"


async def test_what_a_plugin_notes_cannot_spoil_the_answer(workers: Workers):
    service = await workers.start(noisy)
    (msg,) = await exchange(workers, pack({"audio": b"1"}))
    assert unpack(msg.data)["text"] == "fine"
    await until(lambda: service.credits.free == 1)
    assert service.counts == {"ok": 1}


@stage(Nothing, gives=("text",))
async def shouting(draft: Draft, options: Nothing) -> None:
    """Refuse at a length and in letters that no wire takes."""
    raise errors.BadAudio("a" * 9_000_000)


@stage(Nothing, gives=("text",))
async def mumbling(draft: Draft, options: Nothing) -> None:
    """The same, with half a letter and an escape code."""
    raise errors.BadAudio("\ud800\x1b[2J")


@pytest.mark.parametrize("bad", [shouting, mumbling], ids=lambda s: s.name)
async def test_any_message_of_a_stages_reaches_its_caller(bad, workers: Workers):
    await workers.start(bad)
    error = await error_of(workers, pack({"audio": b"1"}))
    assert error["code"] == "bad_audio"
    assert len(error["message"]) <= 500
    assert error["message"].isprintable()


async def test_the_id_of_another_callers_request_is_refused(workers: Workers):
    service = await workers.start(seconds=0.5, slots=2)
    held = asyncio.create_task(exchange(workers, pack({"audio": b"1"}), Stt_Call_Id="same"))
    await until(lambda: service.credits.busy == 1)
    error = await error_of(workers, pack({"audio": b"1"}), Stt_Call_Id="same")
    assert error["code"] == "bad_request"
    assert "Stt-Call-Id" in error["message"]
    assert "text" in unpack((await held)[0].data)


async def test_an_id_brings_no_control_characters_into_the_log(workers: Workers):
    await workers.start(seconds=0)
    (msg,) = await exchange(workers, pack({"audio": b"1"}), Stt_Request_Id="a\x1b]0;b\x07c")
    assert unpack(msg.data)["request_id"] == "a]0;bc"
