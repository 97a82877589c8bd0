"""What the users of `deploy/nats` may not do, each thing tried on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from bus_worker.bus import Address, connect
from bus_worker.errors import SetupError, Unavailable
from tests.helpers.deployed import Deployed, deployed, password

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


@asynccontextmanager
async def said_to(bus: Deployed, user: str) -> AsyncIterator[tuple[Client, "asyncio.Queue[str]"]]:
    """A user's connection that has nothing of ours, and what the server complains of on it."""
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def heard(error: Exception) -> None:
        errors.put_nowait(str(error).lower())

    nc = await nats.connect(bus.url, user=user, password=password(user), error_cb=heard)
    try:
        yield nc, errors
    finally:
        await nc.close()


async def soon(errors: "asyncio.Queue[str]") -> str:
    async with asyncio.timeout(5):
        return await errors.get()
