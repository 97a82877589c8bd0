"""The gateway that `up` keeps: where it listens, what is done when it dies or will not start."""

import asyncio
import socket
import sys

import pytest

from bus_worker import doorkeeper as module
from bus_worker.doorkeeper import Doorkeeper, is_taken
from bus_worker.errors import SetupError
from tests.helpers.house import until


def test_a_port_is_taken_when_somebody_listens_there_or_at_localhost():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert is_taken("127.0.0.1", port)
        assert is_taken("127.0.0.2", port)  # `localhost` would lead clients to them, not to us
    assert not is_taken("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:1"),  # noqa: S104
        ("::", "http://localhost:1"),
        ("127.0.0.1", "http://localhost:1"),
        ("10.1.2.3", "http://10.1.2.3:1"),
        ("fd00::1", "http://[fd00::1]:1"),
    ],
)
def test_the_address_is_one_that_a_browser_here_can_open(host: str, url: str):
    assert Doorkeeper({}, host, 1, drain_timeout=1).url == url


async def test_a_gateway_that_cannot_start_is_the_end(monkeypatch: pytest.MonkeyPatch):
    program = "import sys; sys.exit('bus-gateway: API_PORT=1: not yours')"
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(SetupError, match=r"^the gateway: API_PORT=1: not yours$"):
        async with asyncio.timeout(30):
            await Doorkeeper({}, "127.0.0.1", 1, drain_timeout=1).keep(lambda _: None)


async def test_a_gateway_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        module, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    )
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    said: list[str] = []
    keeper = Doorkeeper({}, "127.0.0.1", 1, drain_timeout=1)
    keeping = asyncio.create_task(keeper.keep(said.append))
    await until(lambda: len(said) > 1)
    keeping.cancel()
    assert "was killed by SIGKILL; starting it again in 0.01 s" in said[0]
    await keeper.stop(asyncio.Event())
    assert not keeper.process.alive
