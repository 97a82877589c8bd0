"""`bus-gateway` as it really runs."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bus_worker import __version__
from bus_worker.embedded import NatsServer, die_with_parent
from tests.helpers.house import Workers, until

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def started(
    folder: Path,
    *args: str,
    command: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    **variables: str,
) -> AsyncIterator:
    process = await asyncio.create_subprocess_exec(
        *command, sys.executable, "-m", "gateway", *args,
        pass_fds=pass_fds,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "API_HOST": "127.0.0.1",
            "API_PORT": "0", "LOG_FORMAT": "json", **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_said(process: asyncio.subprocess.Process, what: str) -> str:
    async with asyncio.timeout(30):
        while what not in (line := (await process.stderr.readline()).decode()):
            assert line, f"ended without saying {what!r}"
    return line


async def test_it_says_where_it_listens_and_finishes_what_it_has_in_hand(
    bus_server: NatsServer, workers: Workers, tmp_path: Path
):
    service = await workers.start(seconds=1.0)
    async with started(tmp_path, NATS_URL=bus_server.url, DEFAULT_MODEL="pretend") as process:
        url = json.loads(await until_said(process, '"event": "ready"'))["url"]
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            asked = asyncio.create_task(http.post("/transcribe", files={"file": bytes(100)}))
            await until(lambda: service.credits.busy)
            process.send_signal(signal.SIGTERM)
            assert (await asked).status_code == 200
        async with asyncio.timeout(30):
            assert await process.wait() == 0


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])  # noqa: S104
async def test_an_open_door_beyond_loopback_is_warned_of(tmp_path: Path, host: str, warned: bool):  # noqa: FBT001
    async with started(tmp_path, API_HOST=host) as process:
        said = ""
        while '"ready"' not in said:
            said += (await process.stderr.readline()).decode()
    assert ("API_KEY is not set" in said) is warned


async def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with started(tmp_path, API_PORT=port) as process:
            out, said = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert said.decode() == (
        f"bus-gateway: cannot listen on API_HOST=127.0.0.1 API_PORT={port}: address already in use\n"
    )


async def test_a_wrong_setting_is_said_in_one_sentence(tmp_path: Path):
    async with started(tmp_path, NATS_CREDS="/nowhere") as process:
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("bus-gateway: NATS_CREDS=")
    assert said.count(b"\n") == 1


async def test_it_tells_its_version(tmp_path: Path):
    async with started(tmp_path, "--version") as process:
        out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, f"bus-gateway {__version__}\n")


def handed_over(door: socket.socket) -> dict[str, Any]:
    """As systemd does it: the socket is number 3, and meant for this process alone."""
    handed = f'exec 3<&{door.fileno()}; LISTEN_PID=$$ exec "$@"'
    command = ("bash", "-c", handed, "sh")
    return {"command": command, "pass_fds": [door.fileno()], "LISTEN_FDS": "1"}


async def test_a_socket_of_systemds_that_is_no_port_is_refused_in_words(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        async with started(tmp_path, **handed_over(door)) as process:
            _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"bus-gateway: systemd's socket is no TCP port: ")


async def test_at_systemds_socket_nobody_is_turned_away_while_it_is_started_anew(tmp_path: Path):
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
    ):
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(5)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        options = handed_over(door) | variables
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
            for _ in range(2):
                asked = asyncio.create_task(http.get("/live"))
                async with started(tmp_path, **options) as process:
                    assert (await asked).status_code == 200
                    lines = [await asyncio.to_thread(ear.recv, 100) for _ in range(2)]
                    assert {*lines} == {b"READY=1", b"WATCHDOG=1"}
                    process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(10):
                        assert await process.wait() == 0
                ear.settimeout(0)
                rest = [ear.recv(100)]
                while rest[-1] != b"STOPPING=1":
                    rest.append(ear.recv(100))
                ear.settimeout(5)


async def test_who_has_just_come_when_it_ends_is_still_heard(tmp_path: Path):
    async with started(tmp_path) as process:
        said = await until_said(process, '"event": "ready"')
        port = int(json.loads(said)["url"].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\n")
        await writer.drain()
        process.send_signal(signal.SIGTERM)
        await until(lambda: not listens(port))
        writer.write(b"Host: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
