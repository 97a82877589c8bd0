"""A bus with all that `setup` makes, for tests of what is kept there; some make one of their own."""

from collections.abc import AsyncIterator

import pytest

from bus_worker.bus import Address, Bus, connect
from bus_worker.embedded import NatsServer
from bus_worker.results import Results
from bus_worker.streams import make_streams
from tests.helpers.house import NAMES


@pytest.fixture
async def bus(bus_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection of its own."""
    async with connect(Address((bus_server.url,))) as bus:
        await make_streams(bus.client, NAMES, "pretend")
        yield bus


@pytest.fixture
def results(bus: Bus) -> Results:
    """What is kept of jobs there."""
    return Results(bus.client, NAMES)
