"""Servers that many tests share: started once, real ones."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from bus_worker.embedded import NatsServer, ValkeyServer, nats_server, valkey_server
from tests.helpers.house import Workers

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts us in the background has us ignore Ctrl-C, and our children, which tests send it to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No timing decides a test: a busy machine draws examples slowly.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# As the product's own: the pretty traceback that comes with structlog takes half a second of CPU each.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "speech"


SLOWEST_FIRST = (
    "e2e/test_up.py", "gateway/page/test_in_a_browser.py", "plugins/test_whisper.py",
    "bus_worker/cli/test_jobs.py", "bus_worker/bench/test_contest.py", "e2e/test_cache.py",
    "gateway/page/test_long_recordings.py", "gateway/test_openapi.py", "e2e/test_restarts.py",
    "bus_worker/cli/test_doctor.py", "bus_worker/cli/test_transcribe.py", "e2e/test_bus_away.py",
    "e2e/test_jobs_queues.py", "bus_worker/test_bench.py", "gateway/openai/test_description.py",
    "bus_worker/jobs/test_worker.py", "gateway/openai/test_node_sdks.py",
    "bus_worker/test_single_flight.py", "e2e/test_stages.py", "deploy/test_check_metrics.py",
    "plugins/test_whisper_stream.py", "bus_worker/test_client.py", "gateway/test_sse.py",
    "bus_worker/jobs/test_ending.py", "deploy/test_grafana.py", "e2e/test_jobs_survive.py",
    "plugins/test_whisper_engine.py", "e2e/test_discovery.py", "gateway/test_health.py",
    "e2e/test_node.py",
)  # fmt: skip
"""Files that take over ten seconds (`--durations 0` tells): begun last, one would keep all waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever shares the tests out hands on files in this order (`--no-loadscope-reorder`)."""
    here = Path(__file__).parent
    turn = {here / name: at for at, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))


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
