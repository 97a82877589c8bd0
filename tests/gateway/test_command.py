"""`bus-gateway` as it really runs."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from bus_worker import __version__
from bus_worker.embedded import NatsServer, die_with_parent
from tests.helpers.house import Workers, until

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def started(folder: Path, *args: str, **variables: str) -> AsyncIterator:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *args,
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
