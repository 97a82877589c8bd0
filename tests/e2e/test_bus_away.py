"""nats-server goes and comes back, is late, or will not have us."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from bus_worker import errors
from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer, nats_server
from tests.helpers.processes import Processes, until_answering, until_busy

RECORDED = '''
"""Writes down when it runs."""
import time
from pathlib import Path
from pydantic import BaseModel
from bus_worker.plugin import Draft, stage

class Options(BaseModel):
    file: Path
    seconds: float = 0.1

@stage(Options, gives=("text",), per_request=("seconds",))
def recorded(draft: Draft, options: Options) -> None:
    """Take a while, and tell a file of the start and the end."""
    with options.file.open("a", buffering=1) as file:
        file.write("+1\\n")
        time.sleep(options.seconds)
        file.write("-1\\n")
    draft.text = f"{len(draft.audio)} bytes"
'''


async def stopped(server: NatsServer) -> None:
    await server.stop()


async def killed(server: NatsServer) -> None:
    assert server.process is not None
    server.process.kill()
    await server.process.wait()


@pytest.mark.parametrize("gone", [stopped, killed])
async def test_after_the_bus_was_away_everything_goes_on_by_itself(
    processes: Processes,
    caller: TranscribeClient,
    nc: Client,
    bus_server: NatsServer,
    gone: Callable[[NatsServer], Awaitable[None]],
):
    workers = await processes.start(2, WORKER_SLOTS="2")
    in_hand = [
        asyncio.create_task(
            caller.transcribe(b"x" * size, stages={"pretend": {"seconds": seconds}})
        )
        for size, seconds in ((5, 0.8), (6, 2.5))  # one ends while the bus is away, one after
    ]
    await until_busy(nc)
    await gone(bus_server)
    asked = time.monotonic()
    with pytest.raises(errors.Unavailable, match="the bus was away"):
        await caller.transcribe(b"meanwhile", timeout=1.2)
    assert time.monotonic() - asked < 2
    waiting = asyncio.create_task(caller.transcribe(b"x" * 8, timeout=15))
    await asyncio.sleep(0.1)
    await bus_server.start()
    assert [t.text for t in await asyncio.gather(*in_hand, waiting)] == [
        "5 bytes",
        "6 bytes",
        "8 bytes",
    ]
    await until_answering(nc, {worker.worker_id for worker in workers})
    assert (await caller.transcribe(b"x" * 9)).text == "9 bytes"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A stage's file; beside it the stage writes `running`."""
    path = tmp_path / "recorded.py"
    path.write_text(RECORDED)
    return path


def peak(file: Path) -> tuple[int, int]:
    """How many ran at once at most, and how many in all."""
    running = most = count = 0
    for line in file.read_text().split():
        running += int(line)
        count += line == "+1"
        most = max(most, running)
    return most, count


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_restarted_bus_gives_one_slot_one_request_at_a_time(  # noqa: PLR0917 - fixtures
    processes: Processes,
    caller: TranscribeClient,
    nc: Client,
    bus_server: NatsServer,
    record: Path,
    busy: bool,  # noqa: FBT001 - a parameter of the test
):
    file = record.with_name("running")
    (worker,) = await processes.start(
        1, record, PIPELINE="recorded", RECORDED__FILE=str(file), WORKER_SLOTS="1"
    )
    first = asyncio.create_task(
        caller.transcribe(b"x" * 9, stages={"recorded": {"seconds": 2.0 if busy else 0.0}})
    )
    if busy:
        await until_busy(nc)
    else:
        await first
    await bus_server.stop()
    await bus_server.start()
    await until_answering(nc, {worker.worker_id})
    assert first.done() is not busy
    got = await asyncio.gather(*(caller.transcribe(b"x" * n) for n in range(1, 7)))
    assert [t.text for t in got] == [f"{n} bytes" for n in range(1, 7)]
    assert (await first).text == "9 bytes"
    assert peak(file) == (1, 7)


async def test_a_worker_waits_for_a_bus_that_is_late(processes: Processes, bus_server: NatsServer):
    await bus_server.stop()
    worker = await processes.spawn()
    await worker.said("no bus at nats://127.0.0.1")
    assert not worker.has_said("ready")
    await bus_server.start()
    await worker.said("ready", 10)
    async with TranscribeClient(bus_server.url, model="pretend") as caller:
        assert (await caller.transcribe(b"x" * 7)).text == "7 bytes"
    worker.signal(signal.SIGTERM)
    assert await worker.left() == 0


async def test_a_worker_that_waits_for_the_bus_can_be_told_to_leave(
    processes: Processes, bus_server: NatsServer
):
    await bus_server.stop()
    worker = await processes.spawn()
    await worker.said("no bus at nats://127.0.0.1")
    worker.signal(signal.SIGTERM)
    assert await worker.left(2) in {0, -signal.SIGTERM}


@pytest.fixture
async def guarded() -> AsyncIterator[NatsServer]:
    """A server that asks for a token."""
    async with nats_server(token="the-right-token") as server:
        yield server


@pytest.mark.parametrize("where", ["variable", "url"])
async def test_wrong_credentials_end_the_start_in_one_sentence_without_the_secret(
    guarded: NatsServer, tmp_path: Path, where: str
):
    secret = "hunter2hunter2"  # noqa: S105 - made up
    address = guarded.url.removeprefix("nats://")
    async with Processes(guarded.url, tmp_path) as processes:
        worker = await processes.spawn(
            **(
                {"NATS_TOKEN": secret}
                if where == "variable"
                else {"NATS_URL": f"nats://{secret}@{address}"}
            )
        )
        assert await worker.left(20) == 1
    (sentence,) = worker.sentences
    assert f"nats://{address}" in sentence
    assert "authorization" in sentence.lower()
    assert secret not in str(worker.sentences) + str(worker.lines)
