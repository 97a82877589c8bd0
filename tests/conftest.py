"""Servers that many tests share: started once, real ones."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bus_worker.embedded import NatsServer, ValkeyServer, nats_server, valkey_server
from tests.helpers.house import Workers

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts us in the background has us ignore Ctrl-C, and our children, which tests send it to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No timing decides a test: a busy machine draws examples slowly.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "speech"


@pytest.fixture
async def bus_server() -> AsyncIterator[NatsServer]:
    """A nats-server of the test's own: it starts in tens of milliseconds, and may be stopped."""
    async with nats_server(default_model="pretend") as server:
        yield server


@pytest.fixture
async def valkey() -> AsyncIterator[ValkeyServer]:
    """A valkey-server of the test's own; it may be stopped, killed or held."""
    async with valkey_server() as server:
        yield server


@pytest.fixture
async def workers(bus_server: NatsServer) -> AsyncIterator[Workers]:
    """Workers inside this process on that server, with a pretended engine."""
    async with Workers(bus_server) as house:
        yield house


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real speech that lies beside the project; its tests are left out without it."""
    if not SPEECH.is_dir():
        pytest.skip("no real speech beside the project (../shared/speech)")
    return SPEECH
