"""The gateway beside the workers of `up`: started, started again when it dies, taken down first."""

import asyncio
import contextlib
import importlib.util
import signal
import socket
import sys
from collections.abc import Callable, Mapping

from bus_worker.crew import FIRST_PAUSE, LEAVE, LONGEST_PAUSE, WorkerProcess
from bus_worker.errors import SetupError

__all__ = ["Doorkeeper", "is_taken"]

COMMAND = (sys.executable, "-P", "-m", "gateway")
NEEDS = ("starlette", "uvicorn")
ANSWERS_WITHIN = 20.0
LOOK_EVERY = 0.05
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


class Doorkeeper:
    """Keeps one gateway running."""

    def __init__(
        self, variables: Mapping[str, str], host: str, port: int, *, drain_timeout: float
    ) -> None:
        """Args: variables are over ours, for its environment; port is free."""
        self.process = WorkerProcess(0, command=COMMAND)
        self.port = port
        self._near = EVERYWHERE.get(host, host)
        self._variables = {**variables, "API_HOST": host, "API_PORT": str(port)}
        self._drain_timeout = drain_timeout
        self._stopping = False

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        near = "localhost" if self._near in EVERYWHERE.values() else self._near
        return f"http://{f'[{near}]' if ':' in near else near}:{self.port}"

    async def keep(self, say: Callable[[str], None]) -> None:
        """Run it, again and again.

        Raises:
            SetupError: it cannot start as things are set up; its own sentence.
        """
        pause = FIRST_PAUSE
        while True:
            await self.process.start(self._variables)
            how = await self.process.ended()
            if self._stopping:
                await asyncio.Event().wait()  # its end is no news; the crew's comes next
            if self.process.sentence and not self.process.ready:
                raise SetupError(f"the gateway: {self.process.sentence}")
            say(f"gateway (pid {self.process.pid}) {how}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def answering(self) -> bool:
        """Wait until it answers; False where it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN):
                while not await _answers(self._near, self.port):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(LOOK_EVERY)
                self.process.ready = True
        return self.process.ready

    async def stop(self, now: asyncio.Event) -> None:
        """Let it finish what it has in hand; kill it when `now` is set."""
        self._stopping = True
        if self.process.process is None:
            return
        self.process.send(signal.SIGTERM)
        leaving = asyncio.create_task(self.process.ended(), name="leaving")
        hurry = asyncio.create_task(now.wait(), name="hurry")
        await asyncio.wait(
            {leaving, hurry},
            timeout=self._drain_timeout + LEAVE,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurry.cancel()
        self.process.send(signal.SIGKILL)
        await asyncio.wait({leaving, hurry})

    @staticmethod
    def missing() -> bool:
        """Whether what a gateway stands on is not installed here."""
        return any(importlib.util.find_spec(name) is None for name in NEEDS)


async def _answers(host: str, port: int) -> bool:
    """Whether a gateway is there, and says that it lives."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        writer.close()


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there, or where clients look first."""
    for name in {host, "localhost"}:
        with contextlib.suppress(OSError):
            socket.create_connection((name, port), timeout=0.2).close()
            return True
    return False
