"""A bus with one worker whose text is that of its segments, and a gateway with a key."""

from collections.abc import AsyncIterator

import pytest_asyncio
from openai import AsyncOpenAI

from bus_worker.embedded import nats_server
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.testing import pretend
from plugins.tidy import tidy
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Workers]:
    """A bus with its streams, and one worker of four slots that answers at once."""
    async with nats_server(default_model="pretend") as server, Workers(server) as house:
        await make_streams((await house.bus()).client, Subjects())
        await house.start(pretend, tidy, seconds=0, segments=2, slots=4)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(house: Workers) -> AsyncIterator[Gateway]:
    """A gateway on that bus; the key is `right`."""
    async with gateway(house.server.url, max_file_size=2_000_000, api_key="right") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai(door: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """The vendor's own client."""
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key="right") as client:
        yield client
