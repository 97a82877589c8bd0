"""A bus, one pretended worker and a gateway, for a whole module of tests."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from bus_worker.embedded import nats_server
from bus_worker.messages import ModelInfo, Timings, Transcript
from bus_worker.results import Results
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.testing import segment
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.hand import Hand
from tests.helpers.house import Workers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Workers]:
    """A bus with its streams, and one worker of four slots that answers at once."""
    async with nats_server(default_model="pretend") as server, Workers(server) as house:
        await make_streams((await house.bus()).client, Subjects(), "pretend")
        await house.start(seconds=0, slots=4)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(house: Workers) -> AsyncIterator[Gateway]:
    """A gateway on that bus."""
    async with gateway(
        house.server.url, max_file_size=2_000_000, job_max_file_size=6_000_000
    ) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def hand(house: Workers) -> Hand:
    """One that writes of jobs on the bus of `house`."""
    return Hand(Results((await house.bus()).client, Subjects()))


@pytest.fixture
def transcript_of() -> Callable[..., Transcript]:
    """Makes a transcript of segments given as (start, end, confidence)."""

    def made(*segments: tuple[float, float, float]) -> Transcript:
        return Transcript(
            request_id="r", text="", language=None, language_probability=None, duration=1,
            segments=[
                replace(segment("a", start, end, number), confidence=sure)
                for number, (start, end, sure) in enumerate(segments)
            ],
            model=ModelInfo("m"), timings=Timings(), real_time_factor=0, worker_id="w",
        )  # fmt: skip

    return made
