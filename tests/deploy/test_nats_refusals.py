"""What the users of `deploy/nats` may not do, each thing tried on a real server."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker import doctor
from bus_worker.bus import Address, Forbidden, connect
from bus_worker.client import TranscribeClient
from bus_worker.errors import SetupError, Unavailable
from bus_worker.hardened import HardenedClient, Refused
from bus_worker.health import Health
from bus_worker.jetstream import JetStream
from bus_worker.pulls import Pulls, WorkQueue
from bus_worker.settings import Settings
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.systemd import Systemd
from tests.helpers.deployed import Deployed, deployed, password
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.shell import PRETEND, shell

pytestmark = pytest.mark.asyncio(loop_scope="module")

HASH = "$2a$04$1hHLA4SrXBZ0WJ2tXRHZP.ly72l.MIY6Cu06yEvqb6ZycBzuGqY8u"
"""Of `correct horse`, as `nats server passwd` writes it."""
ID = "0123456789abcdef0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployed]:
    """One server for all; nobody need be there to be refused."""
    async with deployed(tmp_path_factory.mktemp("nats")) as server:
        yield server


LISTENING = {
    "worker": (
        # Requests go to one worker each: to listen beside the group is to read everybody's audio.
        "stt.v1.transcribe.base", "stt.v1.transcribe.* spies", "stt.v1.> stt-workers",
        "stt.v1.lookup.*", "stt.jobs.>", "stt.events.*", "stt.claims.>", "stt.results.>",
        "_INBOX.gateway.>", "_INBOX.publisher.>", "_INBOX.>", "_INBOX.*", ">", "$JS.>", "$SRV.>",
    ),
    "gateway": (
        "stt.v1.transcribe.base", "stt.v1.transcribe.base stt-workers", "stt.control.>",
        "stt.results.>", "stt.state.>", "stt.jobs.>", "_INBOX.publisher.>", "_INBOX.>", ">",
    ),
    "publisher": (
        "stt.v1.transcribe.>", "stt.v1.transcribe.base stt-workers", "stt.v1.>", "stt.control.*",
        "stt.jobs.>", "stt.windows.>", "stt.state.>", "stt.claims.>", "stt.dead.*", "stt.webhooks",
        "_INBOX.gateway.>", "_INBOX.worker.>", "_INBOX.>", "_INBOX.*.>", "stt.>", ">", "$JS.>",
    ),
    "admin": ("stt.v1.transcribe.*", "stt.claims.>", "_INBOX.gateway.>", "_INBOX.>", ">"),
}  # fmt: skip
SAYING = {
    "worker": (
        "$JS.API.STREAM.DELETE.STT_JOBS", "$JS.API.STREAM.PURGE.STT_JOBS",
        "$JS.API.STREAM.UPDATE.STT_JOBS", "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.MSG.GET.STT_DEAD", "$JS.API.CONSUMER.DELETE.STT_JOBS.base-low",
        "$JS.API.CONSUMER.CREATE.STT_JOBS", "$JS.API.CONSUMER.DURABLE.CREATE.STT_JOBS.mine",
        "$JS.API.CONSUMER.MSG.NEXT.STT_EVENTS.mine", f"$JS.API.DIRECT.GET.STT_DEAD.stt.dead.{ID}",
        "$JS.API.DIRECT.GET.STT_CLAIMS", "$JS.ACK.OTHER.mine.1.1.1.1.1",
        "stt.v1.transcribe.base", "stt.jobs.base.low", "stt.control.cancel", "_INBOX.admin.mine",
    ),
    "gateway": (
        "$JS.API.STREAM.PURGE.STT_JOBS", "$JS.API.STREAM.DELETE.STT_CLAIMS", "$JS.API.INFO",
        "$JS.API.STREAM.INFO.STT_JOBS", "$JS.API.CONSUMER.MSG.NEXT.STT_JOBS.base-low",
        f"$JS.API.DIRECT.GET.STT_CLAIMS.stt.claims.{ID}.0", "$JS.API.DIRECT.GET.STT_DEAD",
        "stt.windows.base.low", "stt.webhooks", "stt.results.mine", "_INBOX.publisher.mine",
    ),
    "publisher": (
        "$JS.API.CONSUMER.MSG.NEXT.STT_JOBS.base-low", "$JS.ACK.STT_JOBS.base-low.1.1.1.1.1",
        "$JS.API.STREAM.PURGE.STT_JOBS", "$JS.API.STREAM.MSG.DELETE.STT_STATE",
        "$JS.API.STREAM.MSG.GET.STT_CLAIMS", "$JS.API.CONSUMER.CREATE.STT_EVENTS",
        # Everybody's audio: that of the jobs that failed, that on its way, by lists or by ids.
        "$JS.API.DIRECT.GET.STT_DEAD", "$JS.API.DIRECT.GET.STT_CLAIMS",
        f"$JS.API.DIRECT.GET.STT_CLAIMS.stt.claims.{ID}.0",
        "stt.windows.base.low", "stt.webhooks", "stt.control.cache.clear", "stt.results.mine",
        "_INBOX.gateway.mine", "_INBOX.worker.mine", "$SRV.INFO",
    ),
    "admin": ("stt.windows.base.low", "stt.webhooks", "stt.results.mine", "_INBOX.gateway.mine"),
}  # fmt: skip


def rows(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(user, subject) for user, subjects in table.items() for subject in subjects]


@pytest.mark.parametrize(("user", "subject"), rows(LISTENING))
async def test_nobody_listens_where_it_has_no_business(bus: Deployed, user: str, subject: str):
    place, _, group = subject.partition(" ")
    async with said_to(bus, user) as (nc, errors):
        await nc.subscribe(place, group)
        assert f'subscription to "{place}"'.lower() in await soon(errors)


@pytest.mark.parametrize(("user", "subject"), rows(SAYING))
async def test_nobody_says_what_is_not_its_to_say(bus: Deployed, user: str, subject: str):
    async with said_to(bus, user) as (nc, errors):
        await nc.publish(subject, b"{}", reply=f"_INBOX.{user}.mine")
        assert f'publish to "{subject}"'.lower() in await soon(errors)


@pytest.mark.parametrize(
    "who",
    [{}, {"user": "worker"}, {"user": "worker", "password": password("gateway")},
     {"user": "root", "password": password("worker")}, {"token": password("admin")}],
)  # fmt: skip
async def test_nobody_comes_in_without_its_own_password(bus: Deployed, who: dict[str, str]):
    with pytest.raises(Unavailable, match="Authorization"):
        async with connect(Address((bus.url,), **who)):
            pass


async def test_a_password_may_be_kept_as_a_hash(tmp_path: Path):
    async with deployed(tmp_path, NATS_ADMIN_PASSWORD=HASH) as server:
        async with connect(Address((server.url,), user="admin", password="correct horse")):
            pass
        with pytest.raises(Unavailable, match="Authorization"):
            async with connect(Address((server.url,), user="admin", password=HASH)):
                pass


async def test_without_its_password_a_user_stops_the_start(tmp_path: Path):
    with pytest.raises(SetupError, match="NATS_GATEWAY_PASSWORD"):
        async with deployed(tmp_path, NATS_GATEWAY_PASSWORD=None):
            pass


# --- what a person sees ------------------------------------------------------------------------


async def test_a_question_that_is_refused_is_answered_and_not_waited_for(bus: Deployed):
    """The server names no question when it refuses one; stock waits until it gives up."""
    place = "$JS.API.STREAM.INFO.STT_JOBS"
    async with said_to(bus, "publisher", inbox_prefix=b"_INBOX.publisher") as (stock, errors):
        with pytest.raises(nats.errors.TimeoutError):
            await stock.request(place, timeout=0.2)
        assert "permissions violation" in await soon(errors)
    async with connect(bus.address("publisher")) as ours:
        with pytest.raises(Refused, match=re.escape(f"user 'publisher' publish on {place}")):
            await ours.client.request(place, timeout=60)


@pytest.mark.parametrize(
    ("user", "place", "said"),
    [
        ("worker", "_INBOX.worker", r"let user 'worker' publish on stt\.v1\.transcribe: "),
        ("publisher", "_INBOX", r"listen on _INBOX\.\w+\.\*: set NATS_INBOX_PREFIX"),
        ("publisher", "_INBOX.gateway", r"listen on _INBOX\.gateway\.\w+\.\*: set NATS_INBOX_P"),
    ],
)
async def test_a_caller_hears_at_once_what_it_may_not(
    bus: Deployed, user: str, place: str, said: str
):
    address = replace(bus.address(user), inbox_prefix=place)
    async with TranscribeClient(address, timeout=60) as client:
        for _ in range(2):  # the second is not even sent
            with pytest.raises(Forbidden, match=said):
                await client.transcribe(b"audio")
        with pytest.raises(Forbidden):
            await client.submit(b"audio")


async def test_who_may_ask_is_not_told_that_another_may_not(bus: Deployed):
    """The server may have added a word to what was asked, but not where somebody said it all."""
    asked, refused = asyncio.Event(), asyncio.Event()

    async def answer(msg: Msg) -> None:
        asked.set()
        await refused.wait()
        await msg.respond(b"here")

    async with connect(bus.address("worker")) as ours, asyncio.timeout(10):
        await ours.client.subscribe("$SRV.PING.stt", cb=answer)
        waiting = asyncio.create_task(ours.client.request("$SRV.PING.stt", timeout=60))
        await asked.wait()
        with pytest.raises(Refused):
            await ours.client.request("$SRV.PING.stt.mine", timeout=60)
        refused.set()
        assert (await waiting).data == b"here"


async def test_places_where_nobody_listens_any_more_are_forgotten(bus: Deployed):
    async def heard(_: Msg) -> None:
        """Nothing ever comes."""

    async with connect(bus.address("publisher")) as ours:
        for number in range(3):  # as each job of a user that may not follow them
            sub = await ours.client.subscribe(f"stt.state.{number}.status", cb=heard)
            assert await ours.confirmed()
            await ours.unsubscribe([sub])
        assert isinstance(ours.client, HardenedClient)
        assert list(ours.client.unheard) == ["stt.state.2.status"]


async def test_nobody_writes_a_refusal_that_the_server_did_not_say(bus: Deployed):
    """What is kept brings its headers: a job would be left for later again and again."""
    async with connect(bus.address("admin")) as admin:
        await make_streams(admin.client, Subjects("stt"))
    async with connect(bus.address("publisher")) as liar, connect(bus.address("worker")) as worker:
        place = f"stt.state.{ID}.status"
        await liar.client.publish(place, b"x", headers={"Bus-Worker-Refused": "go away"})
        assert await liar.confirmed()
        kept = await JetStream(worker.client).last("STT_STATE", place)
        assert kept is not None
        assert kept.data == b"x"


async def test_a_worker_that_may_not_take_jobs_says_why_it_has_none(
    bus: Deployed, caplog: pytest.LogCaptureFixture
):
    async with connect(bus.address("publisher")) as ours:
        pulls = Pulls(ours, 10)
        await pulls.start()
        assert await pulls.now(WorkQueue("STT_JOBS", "base-low")) is None
        await pulls.stop()
    assert (
        "base-low of STT_JOBS gives no work: the bus does not let user 'publisher'" in caplog.text
    )


async def test_the_doctor_says_which_look_is_refused(bus: Deployed):
    who = {f"nats_{name}": value for name, value in bus.who("publisher").items()}
    settings = Settings(nats_url=(bus.url,), **who | {"nats_inbox_prefix": "_INBOX"})
    connected, *looks = [finding async for finding in doctor._bus(settings)]
    assert (connected.well, len(looks)) == (True, 3)
    for look in looks:
        assert (look.well, "set NATS_INBOX_PREFIX" in look.says) == (False, True)


async def test_a_gateway_that_may_not_hear_its_workers_says_so_however_it_is_asked(bus: Deployed):
    who = {f"nats_{name}": value for name, value in bus.who("gateway").items()}
    wrong = who | {"nats_inbox_prefix": "_INBOX"}
    async with gateway(bus.url, **wrong) as door, door.caller() as http:
        for path in ("/ready", "/health", "/stats"):
            answer = await http.get(path)
            assert (path, answer.status_code) == (path, 503)
            assert "set NATS_INBOX_PREFIX" in answer.text


async def test_setup_by_another_user_says_whose_it_is(bus: Deployed, tmp_path: Path):
    ended = await shell("setup", cwd=tmp_path, **PRETEND, **bus.variables("worker"))
    assert ended.status == 1
    assert ended.sentence == (
        "the bus does not let user 'worker' publish on $JS.API.STREAM.INFO.STT_CLAIMS: have its"
        " permissions widened, or be another user; `bus-worker setup` is an admin's"
    )


async def test_a_worker_that_may_not_listen_does_not_start(bus: Deployed, tmp_path: Path):
    ended = await shell("run", cwd=tmp_path, **PRETEND, **bus.variables("gateway"))
    said = {(line := json.loads(text))["event"]: line for text in ended.err.splitlines()}
    assert (ended.status, "ready" in said) == (1, False)
    assert said["not_allowed"]["why"].startswith(
        "the bus does not let user 'gateway' listen on stt.control.cancel"
    )


async def test_a_worker_that_hears_no_more_what_it_should_is_not_ready(bus: Deployed):
    """An admin may narrow what it may while it runs."""
    async with Workers(bus, **bus.who("worker")) as house:
        service = await house.start(seconds=0)
        health = Health(60, Systemd({}))
        health.watch(service._bus, service)
        assert health.not_ready() == []
        await service._bus.client.subscribe("stt.events.*")
        assert await service._bus.confirmed()
        health._look()
        (why,) = health.not_ready()
        assert why.startswith("the bus does not let user 'worker' listen on stt.events.*: ")


@asynccontextmanager
async def said_to(
    bus: Deployed, user: str, **options: Any
) -> AsyncIterator[tuple[Client, "asyncio.Queue[str]"]]:
    """A user's connection that has nothing of ours, and what the server complains of on it."""
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def heard(error: Exception) -> None:
        errors.put_nowait(str(error).lower())

    nc = await nats.connect(bus.url, user=user, password=password(user), error_cb=heard, **options)
    try:
        yield nc, errors
    finally:
        await nc.close()


async def soon(errors: "asyncio.Queue[str]") -> str:
    async with asyncio.timeout(5):
        return await errors.get()
