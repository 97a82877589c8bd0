"""The processes that are measured: real workers, and plain ones to compare with."""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_worker import testing
from bus_worker.embedded import die_with_parent
from bus_worker.errors import SetupError
from bus_worker.settings import Settings, inherited

__all__ = ["PRETEND", "WORKER", "Started", "started"]

WORKER = ("-P", "-m", "bus_worker", "run")
PRETEND = {
    "PIPELINE": "pretend",
    "PLUGINS_PATH": str(Path(testing.__file__)),
    "WHISPER_MODEL": "pretend",
    "PRETEND__SECONDS": "0",
    "CACHE_ENABLED": "false",
}
"""Variables of a worker whose engine only pretends, and is asked again each time."""
START_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Started:
    """A process that has said that it is ready."""

    pid: int
    wall: float
    """Seconds from its start to then."""
    ready: dict[str, Any]
    """What it said."""


@asynccontextmanager
async def started(*arguments: str, **variables: str) -> AsyncIterator[Started]:
    """Run Python until the end of the block; entered when a JSON line on standard error says `ready`.

    It runs in an empty folder with none of this environment's settings but `variables`.

    Raises:
        SetupError: it ended before; says what it said.
    """
    unset = {name.upper(): "" for name in Settings.model_fields if name != "model_dir"}
    with tempfile.TemporaryDirectory(prefix="bus-worker-bench-") as folder:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=folder,
            env=inherited({**unset, "LOG_FORMAT": "json", **variables}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(),
        )
        assert process.stderr is not None  # noqa: S101 - asked for above
        reading: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                line = await _until_ready(process.stderr)
            wall = time.perf_counter() - began
            reading = asyncio.create_task(_drop(process.stderr), name="drop")
            yield Started(process.pid, wall, line)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            if reading is not None:
                await reading


async def _until_ready(said: asyncio.StreamReader) -> dict[str, Any]:
    text = ""
    async for raw in said:
        text = raw.decode(errors="replace").strip()
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        if line.get("event") == "ready":
            return line
    raise SetupError(f"a process did not become ready; it said: {text or 'nothing'}")


async def _drop(said: asyncio.StreamReader) -> None:
    """Read on, so that it never waits for a reader."""
    while await said.read(65536):
        pass
