"""Real worker processes on a real nats-server, and a plain connection to look on."""

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer
from tests.helpers.processes import Processes


@pytest.fixture
async def processes(bus_server: NatsServer, tmp_path: Path) -> AsyncIterator[Processes]:
    """Starts worker processes; none outlives the test."""
    folder = tmp_path / "workers"
    folder.mkdir()
    async with Processes(bus_server.url, folder) as started:
        yield started


@pytest.fixture
async def nc(bus_server: NatsServer) -> AsyncIterator[Client]:
    """A connection that has nothing of ours."""
    client = await nats.connect(
        bus_server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=_quiet
    )
    yield client
    await client.close()


@pytest.fixture
async def caller(bus_server: NatsServer) -> AsyncIterator[TranscribeClient]:
    """A client of the workers."""
    async with TranscribeClient(bus_server.url, model="pretend", timeout=20) as client:
        yield client


async def _quiet(_: Exception) -> None:
    """A server that goes away on purpose is no news."""
