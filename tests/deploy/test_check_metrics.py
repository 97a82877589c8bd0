"""`check_metrics` against workers that are well, slow or failing, and gone."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer
from bus_worker.errors import DeadlineExceeded
from tests.helpers.checks import Checks, Said
from tests.helpers.gateway import gateway
from tests.helpers.processes import Processes, WorkerProcess, hold


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path / "home")


@pytest.fixture
async def processes(bus_server: NatsServer, tmp_path: Path) -> AsyncIterator[Processes]:
    async with Processes(bus_server.url, tmp_path) as started:
        yield started


def address(worker: WorkerProcess) -> str:
    return f"127.0.0.1:{worker.event('ready')['metrics_port']}"


async def noticed(checks: Checks, *look: str) -> Said:
    """What a check says once it is not OK: a worker looks at itself once a second."""
    async with asyncio.timeout(30):
        while (said := await checks(*look)).status == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    return said


async def test_what_happened_since_the_last_look_is_judged(bus_server, processes, checks):
    workers = await processes.start(2, METRICS_PORT="0", PRETEND__SECONDS="0.02")
    where = [address(worker) for worker in workers]

    async def look(*options: object) -> Said:
        return await checks("check_metrics", *where, *options)

    async with TranscribeClient(bus_server.url, model="pretend", timeout=10) as client:
        first = await look()
        assert first.status == 0, first.line
        assert first.line.startswith(
            "OK: 2 of 2 workers ready, 2 slots free, 0 requests since the last look |"
        )
        for number in range(6):
            await client.transcribe(bytes(number + 1))
        slow = await look("--p95", "0.001,60", "--queue-wait", "5,60")
        assert slow.status == 1, slow.line
        assert "WARNING: one request in twenty takes longer than 0." in slow.line
        assert slow.figures["requests"] == "6;;;0"
        assert slow.figures["error_rate"] == "0.000;0.05;0.2;0"
        quiet = await look("--p95", "0.001,60")
        assert (quiet.status, quiet.figures["requests"]) == (0, "0;;;0")

        for number in range(5):
            with pytest.raises(DeadlineExceeded):
                await client.transcribe(
                    bytes(number + 1), stages={"pretend": {"seconds": 5}}, timeout=0.2
                )
        failing = await look("--least", 1)
        assert failing.status == 2, failing.line
        assert "100% of the requests fail" in failing.line


async def test_workers_that_go_are_missed_one_by_one(bus_server, processes, checks):
    gone, stays = await processes.start(2, METRICS_PORT="0")
    where = [address(gone), address(stays)]
    gone.signal(signal.SIGKILL)
    await gone.left()
    one = await checks("check_metrics", *where)
    assert one.status == 1, one.line
    assert f"WARNING: http://{where[0]}/metrics does not answer" in one.line
    assert one.figures["ready"] == "1;;;0;2"

    hold(stays.process.pid)
    hung = await checks("check_metrics", where[1], "--timeout", 0.5)
    assert hung.status == 2, hung.line
    assert "no answer in 0.5 s" in hung.line
    stays.signal(signal.SIGCONT)

    await bus_server.stop()
    away = await noticed(checks, "check_metrics", where[1])
    assert away.status == 2, away.line
    assert "1 workers have lost the bus" in away.line
    ready = await noticed(checks, "check_health", "--url", f"{where[1]}/ready")
    assert ready.status == 2, ready.line
    assert "the bus is away" in ready.line

    stays.signal(signal.SIGKILL)
    await stays.left()
    dead = await checks("check_metrics", *where)
    assert dead.status == 2, dead.line
    assert dead.line.count("does not answer") == 2


@pytest.mark.parametrize(
    "wrong", [("--p95", "5"), ("--p95", "5,1"), ("--p95", "a,b"), ("http://",)]
)
async def test_what_makes_no_sense_is_refused(checks, wrong):
    said = await checks("check_metrics", "127.0.0.1:9", *wrong)
    assert said.status == 3
    assert said.line.startswith("UNKNOWN: argument ")


async def test_a_gateway_is_no_worker(checks, workers):
    async with gateway(workers.server.url) as door:
        said = await checks("check_metrics", door.url)
        assert said.status == 3
        assert "no metrics of a worker" in said.line
