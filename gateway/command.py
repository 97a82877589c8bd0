"""`bus-gateway`: arguments, the start's one warning, and the server."""

import argparse
import asyncio
import contextlib
import importlib.util
import ipaddress
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import structlog
import uvicorn
from starlette.applications import Starlette

from bus_worker import __version__
from bus_worker.errors import BusWorkerError, SetupError
from bus_worker.logs import set_up_logs
from bus_worker.settings import Settings, environment, load_settings
from bus_worker.systemd import Systemd
from gateway.app import create_app
from gateway.connections import Connection, prepare

__all__ = ["Server", "main"]

_log = structlog.get_logger(__name__)

BACKLOG = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 stopped, 1 could not start, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="bus-gateway",
        description="HTTP in, bus out: the gateway to the workers.",
        epilog="Settings come from the environment and from .env in this folder.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bus-gateway {__version__}")
    parser.parse_args(argv)
    try:
        settings = load_settings()
        set_up_logs(settings.log_level, settings.log_format)
        with asyncio.Runner(loop_factory=_loop()) as runner:
            return runner.run(_serve(settings))
    except BusWorkerError as error:
        sys.stderr.write(f"bus-gateway: {error.message}\n")
        return 1


async def _serve(settings: Settings) -> int:
    systemd = Systemd(environment())
    with _door(settings, systemd) as door:
        server = Server(create_app(settings), drain=settings.drain_timeout, systemd=systemd)
        host, port = door.getsockname()[:2]
        if settings.api_key is None and not _loopback(host):
            _log.warning("API_KEY is not set: whoever reaches this port may use it", port=port)
        await server.serve([door])
    return 0 if server.started else 1


class Server(uvicorn.Server):
    """Says where it listens; ends as it is told, not by the signal itself."""

    def __init__(self, app: Starlette, drain: float, systemd: Systemd) -> None:
        """Args: drain is the seconds that requests in hand get at the end; systemd is told how we are."""
        super().__init__(
            uvicorn.Config(
                app, http=Connection, lifespan="on", ws="none", log_config=None, access_log=False,
                server_header=False, timeout_graceful_shutdown=math.ceil(drain),
                callback_notify=self._alive, timeout_notify=1,
            )
        )  # fmt: skip
        self._systemd = systemd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            _log.info("ready", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
            self._systemd.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in hand."""
        self._systemd.stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal asks to stop, the second means now."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._told)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _alive(self) -> None:
        self._systemd.alive()

    def _told(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _door(settings: Settings, systemd: Systemd) -> socket.socket:
    """The socket to serve at: systemd's, at which callers wait while a gateway is started anew, else our own.

    Raises:
        SetupError: we cannot listen there.
    """
    door = systemd.handed()
    if door is None:
        door = _listen(settings.api_host, settings.api_port)
    elif door.family not in {socket.AF_INET, socket.AF_INET6} or door.type != socket.SOCK_STREAM:
        door.close()
        raise SetupError(
            "systemd's socket is no TCP port: ListenStream= takes an address such as 127.0.0.1:8000"
        )
    prepare(door)
    return door


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        SetupError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        door = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        why = (exc.strerror or str(exc)).partition(" (")[0].lower()
        raise SetupError(f"cannot listen on API_HOST={host} API_PORT={port}: {why}") from exc
    return door


def _loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Where uvloop is to be had (not on Windows), its loop: it takes less of the time of every piece."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
        "uvloop"
    ).new_event_loop
    return factory


def _loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
