"""`bus-worker run` as it really runs: processes, their log lines, their exit status."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from nats.aio.client import Client

from bus_worker.embedded import die_with_parent

COMMAND = (sys.executable, "-m", "bus_worker", "run")
ROOT = Path(__file__).resolve().parents[2]
PRETEND = ROOT / "bus_worker" / "testing.py"
STARTS_WITHIN = 40.0
"""Seconds; a start takes about two on an idle machine."""


def hold(pid: int) -> None:
    """SIGSTOP, and wait until every thread of it stands still: one may answer for a while yet."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 5
    while not all(map(_stands_still, Path(f"/proc/{pid}/task").iterdir())):
        assert time.monotonic() < end, f"{pid} does not stop"
        time.sleep(0.001)


def _stands_still(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(") ")[2][0] in "TtZX"
    except FileNotFoundError:
        return True


class WorkerProcess:
    """One worker process and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.sentences: list[str] = []
        """What it said on standard error that is no log line."""
        self._reading = asyncio.create_task(self._read())

    @property
    def worker_id(self) -> str:
        return str(self.event("ready")["worker_id"])

    def event(self, name: str) -> dict[str, Any]:
        """The first log line whose event begins so."""
        return next(line for line in self.lines if line["event"].startswith(name))

    def has_said(self, name: str) -> bool:
        return any(line["event"].startswith(name) for line in self.lines)

    async def said(self, name: str, limit: float = STARTS_WITHIN) -> dict[str, Any]:
        """Wait for a log line whose event begins so."""
        async with asyncio.timeout(limit):
            while not self.has_said(name):
                ended = self.process.returncode is not None and self._reading.done()
                assert not ended, f"ended without {name!r}: {self.lines[-3:]} {self.sentences}"
                await asyncio.sleep(0.01)
        return self.event(name)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def left(self, limit: float = 30.0) -> int:
        """Wait until the process is gone and all it said is read; its exit status."""
        async with asyncio.timeout(limit):
            status = await self.process.wait()
            await self._reading
        return status

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            text = raw.decode()
            try:
                self.lines.append(json.loads(text))
            except ValueError:
                self.sentences.append(text.rstrip("\n"))


class Processes:
    """Starts worker processes on one bus; whatever still runs at the end is killed."""

    def __init__(self, url: str, folder: Path) -> None:
        """Args: folder is an empty one to run in, so that no `.env` is read."""
        self.url = url
        self.folder = folder
        self.started: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.started:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
        for worker in self.started:
            await worker.left()

    async def spawn(self, *plugins: Path, **variables: str) -> WorkerProcess:
        """A worker that need not become ready; by default with the pretended engine."""
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "TMPDIR", "LANG"}}
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            cwd=self.folder,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "NATS_URL": self.url,
                "PIPELINE": "pretend",
                "PLUGINS_PATH": ",".join(map(str, (PRETEND, *plugins))),
                "WHISPER_MODEL": "pretend",
                "PRETEND__SECONDS": "0.1",
                "CACHE_ENABLED": "false",
                "LOG_FORMAT": "json",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        worker = WorkerProcess(process)
        self.started.append(worker)
        return worker

    async def start(self, count: int = 1, *plugins: Path, **variables: str) -> list[WorkerProcess]:
        """That many workers, ready."""
        workers = [await self.spawn(*plugins, **variables) for _ in range(count)]
        for worker in workers:
            await worker.said("ready")
        return workers


async def ask_all(nc: Client, verb: str, *, wait: float = 0.5) -> list[dict[str, Any]]:
    """Every answer to `$SRV.<verb>.stt` that comes within `wait` seconds."""
    if not nc.is_connected:
        await asyncio.sleep(wait)
        return []
    inbox = f"_INBOX.test.{secrets.token_hex(8)}"
    answers: list[dict[str, Any]] = []

    async def take(msg: Any) -> None:
        if msg.data:
            answers.append(json.loads(msg.data))

    sub = await nc.subscribe(inbox, cb=take)
    await nc.publish(f"$SRV.{verb}.stt", b"", reply=inbox)
    await asyncio.sleep(wait)
    await sub.unsubscribe()
    return answers


async def figures(nc: Client, wait: float = 0.1) -> dict[str, dict[str, Any]]:
    """Our own figures of each worker's endpoint, by worker id."""
    return {
        answer["id"]: answer["endpoints"][0]["data"]
        for answer in await ask_all(nc, "STATS", wait=wait)
    }


async def until_answering(nc: Client, workers: set[str], limit: float = 30.0) -> None:
    """Wait until all of these workers answer on the bus."""
    async with asyncio.timeout(limit):
        while not workers <= set(await figures(nc, 0.05)):
            pass  # each question waits a little for its answers


async def until_busy(nc: Client, limit: float = 30.0) -> str:
    """Wait until a worker has a request in hand; its id."""
    async with asyncio.timeout(limit):
        while True:
            for worker_id, data in (await figures(nc, 0.05)).items():
                if data["in_flight"]:
                    return worker_id
