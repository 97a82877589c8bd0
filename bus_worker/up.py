"""Everything on this machine: a bus, a cache, workers and a gateway as child processes, kept running until told to stop."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bus_worker.bus import connect
from bus_worker.connection import address, open_client
from bus_worker.crew import FIRST_PAUSE, LONGEST_PAUSE, Crew
from bus_worker.doorkeeper import Doorkeeper, is_taken
from bus_worker.embedded import (
    NatsServer,
    ValkeyServer,
    nats_server,
    valkey_server,
    valkey_server_binary,
)
from bus_worker.errors import SetupError
from bus_worker.settings import Settings
from bus_worker.signals import StopSignals
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

__all__ = ["up"]

PORT = 4222
"""Where every client looks when nobody tells it where."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Bus:
    """The bus of this house: ours, or the one that NATS_URL names."""

    settings: Settings
    server: NatsServer | None = None
    beyond: tuple[str, ...] = ()
    """What other machines use as NATS_URL."""

    @property
    def variables(self) -> dict[str, str]:
        """What a worker's environment needs to reach it; empty is unset."""
        if self.server is None:
            return {}
        credentials = {n.upper(): "" for n in Settings.model_fields if n.startswith("nats_")}
        credentials["NATS_INBOX_PREFIX"] = self.settings.nats_inbox_prefix
        return {**credentials, "NATS_URL": self.settings.nats_url[0]}


async def up(
    settings: Settings, *, bus_host: str | None, workers: int, model: str, program: str, say: Say
) -> None:
    """Run a house until SIGINT, SIGTERM or SIGHUP; a second one kills.

    Args:
        bus_host: listen there, with a token, instead of on loopback without.
        model: where requests that name none go.
        program: how this command line is called.
        say: prints one line.

    Raises:
        SetupError, Unavailable: it could not be brought up; one sentence.
    """
    told = StopSignals(signal.SIGHUP)
    work = asyncio.create_task(_keep_house(
        settings, told, bus_host=bus_host, workers=workers, model=model, program=program, say=say
    ), name="up")  # fmt: skip
    stop = asyncio.create_task(told.stop.wait(), name="stop")
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            say("stopping; workers finish what they have in hand (again: kill them)")
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()
    finally:
        stop.cancel()
        await asyncio.wait({stop})
        told.restore()


async def _keep_house(
    settings: Settings,
    told: StopSignals,
    *,
    bus_host: str | None,
    workers: int,
    model: str,
    program: str,
    say: Say,
) -> None:
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(_open_bus(settings, bus_host, model, say))
        await _make_streams(bus.settings, say)
        client = await stack.enter_async_context(open_client(bus.settings))
        cache = await stack.enter_async_context(_open_cache(settings, say))
        variables = bus.variables | _share(settings, workers)
        if cache is not None:
            variables["REDIS_URL"] = cache.url
        door = _door(settings, {**variables, "DEFAULT_MODEL": model}, say)
        crew = Crew(client, workers, variables, drain_timeout=settings.drain_timeout, say=say)
        stack.push_async_callback(crew.stop, told.now)
        if door is not None:
            stack.push_async_callback(door.stop, told.now)
            crew.also(door.keep(say))
        if bus.server is not None:
            crew.also(_keep_server(bus.server, say))
        if cache is not None:
            crew.also(_keep_cache(cache, say))
        say(f"starting {workers} worker{'s'[: workers > 1]}")
        await crew.run(on_ready=lambda: _tell(bus, cache, crew, door, say, program))


async def _make_streams(settings: Settings, say: Say) -> None:
    """As `bus-worker setup`; a bus of others' may refuse, and serves small clips all the same."""
    async with connect(address(settings)) as bus:
        try:
            await make_streams(bus.client, Subjects(settings.subject_prefix), settings.asked_model)
        except SetupError as exc:
            say(f"audio too large for a message will not be taken: {exc.message}")


def _share(settings: Settings, workers: int) -> dict[str, str]:
    """This machine's cores shared out among the workers, and how they log."""
    # Several on one machine cannot share a port; systemd, if it asks, asks about us.
    variables = {"METRICS_PORT": "0", "NOTIFY_SOCKET": "", "WATCHDOG_USEC": ""}
    if settings.whisper_replicas is None and not _on_gpu(settings):
        share = _cores() // (workers * settings.whisper_threads)
        variables["WHISPER_REPLICAS"] = str(max(1, share))
    if settings.log_format == "auto":
        # A worker's standard error is a pipe to us: only we know whether a person reads it.
        variables["LOG_FORMAT"] = "console" if sys.stderr.isatty() else "json"
    return variables


def _on_gpu(settings: Settings) -> bool:
    """Whether the model will run on a GPU, of which cores say nothing."""
    there = any(Path("/dev").glob("nvidia[0-9]*"))
    return settings.whisper_device == "cuda" or (settings.whisper_device == "auto" and there)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@asynccontextmanager
async def _open_bus(
    settings: Settings, host: str | None, model: str, say: Say
) -> AsyncIterator[_Bus]:
    """The bus that the settings name, else a nats-server of ours."""
    if "nats_url" in settings.model_fields_set:
        yield _Bus(settings)
        return
    token = secrets.token_urlsafe(24) if host else None
    async with AsyncExitStack() as stack:
        server = await _start_server(stack, settings, host or "127.0.0.1", token, model)
        if server.port != PORT:
            say(f"port {PORT} is taken; this bus is at {server.port}")
        url = server.url.replace("//", f"//{token}@" if token else "//")
        ours = _for_ours(settings, url)
        beyond = [f"nats://{token}@{at}:{server.port}" for at in _addresses(host)] if host else []
        yield _Bus(ours, server, tuple(beyond))


@asynccontextmanager
async def _open_cache(settings: Settings, say: Say) -> AsyncIterator[ValkeyServer | None]:
    """A valkey-server of ours for all workers; None where REDIS_URL names one, or none is wanted or to be had."""
    if settings.redis_url is not None or not settings.cache_enabled:
        yield None
        return
    try:
        valkey_server_binary()
    except SetupError as exc:
        say(f"{exc.message}; until then each worker keeps a cache of its own")
        yield None
        return
    async with valkey_server() as server:
        yield server


async def _start_server(
    stack: AsyncExitStack, settings: Settings, host: str, token: str | None, model: str
) -> NatsServer:
    """A nats-server on the usual port, or on any where that is taken: never hijack somebody's."""

    def starting(port: int) -> contextlib.AbstractAsyncContextManager[NatsServer]:
        return nats_server(
            port=port, host=host, token=token, default_model=model, prefix=settings.subject_prefix
        )

    if not is_taken(host, PORT):
        # Another `up` may be faster; if something else is wrong, the next try says it.
        with contextlib.suppress(SetupError):
            return await stack.enter_async_context(starting(PORT))
    return await stack.enter_async_context(starting(-1))


def _for_ours(settings: Settings, url: str) -> Settings:
    """The settings of a client of our own bus: no credentials but those in its address."""
    kept = {"nats_inbox_prefix"}
    unset = {
        name: Settings.model_fields[name].default
        for name in Settings.model_fields
        if name.startswith("nats_") and name not in kept
    }
    return settings.model_copy(update={**unset, "nats_url": (url,)})


def _addresses(host: str) -> list[str]:
    """Under which addresses other machines reach us."""
    if host not in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not listened on
        return [f"[{host}]" if ":" in host else host]
    found = []
    # No packet leaves: connecting a datagram socket only asks the routing table.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(str(probe.getsockname()[0]))
    return found or [socket.gethostname()]


async def _keep_server(server: NatsServer, say: Say) -> None:
    """Start our nats-server again when it dies; clients come back by themselves."""
    pause = FIRST_PAUSE
    while server.process is not None:
        await server.process.wait()
        say(f"nats-server (pid {server.process.pid}) has died; starting it again")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        await server.start()


async def _keep_cache(server: ValkeyServer, say: Say) -> None:
    """Start our cache server again when it dies; workers do without it meanwhile."""
    pause = FIRST_PAUSE
    while server.process is not None:
        await server.process.wait()
        say(f"valkey-server (pid {server.process.pid}) has died; starting it again")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            await server.start()
        except SetupError as exc:
            say(exc.message)


def _door(settings: Settings, variables: Mapping[str, str], say: Say) -> Doorkeeper | None:
    """A gateway at API_PORT, or at any port where that is taken; None where it is not installed."""
    if Doorkeeper.missing():
        say("no gateway: what it stands on is not installed (pip install 'bus-worker[gateway]')")
        return None
    host, port = settings.api_host, settings.api_port
    if not port or is_taken(host, port):
        with socket.create_server((host, 0), family=_family(host)) as free:
            found = int(free.getsockname()[1])
        if port:
            say(f"port {port} is taken; this gateway is at {found}")
        port = found
    return Doorkeeper(variables, host, port, drain_timeout=settings.drain_timeout)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def _tell(  # noqa: PLR0917 - one of each thing that runs
    bus: _Bus,
    cache: ValkeyServer | None,
    crew: Crew,
    door: Doorkeeper | None,
    say: Say,
    program: str,
) -> None:
    """What runs where, and what to do with it."""
    if bus.server is not None and bus.server.process is not None:
        local = f"nats://localhost:{bus.server.port}"
        say(f"nats-server  pid {bus.server.process.pid}  {'with a token' if bus.beyond else local}")
    if cache is not None and cache.process is not None:
        say(f"valkey-server  pid {cache.process.pid}  the workers' cache")
    for worker in crew.workers:
        slots = f", {worker.slots} at once" if worker.slots else ""
        say(f"worker {worker.number}     pid {worker.pid}  model {worker.model}{slots}")
    if door is not None and await door.answering():
        say(f"gateway      pid {door.process.pid}  {door.url}")
    if bus.server is None or (bus.server.port == PORT and not bus.beyond):
        say(f"ready: {program} transcribe FILE")
    else:
        say(f"ready: NATS_URL={bus.settings.nats_url[0]} {program} transcribe FILE")
    for url in bus.beyond:
        say(f"more workers on other machines: NATS_URL={url} bus-worker run")
    say("Ctrl-C stops all of it")
