"""`bus-worker` as a person calls it: in a folder, with a few variables, to its end."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_worker.embedded import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "bus_worker")
PRETEND = {
    "PIPELINE": "pretend",
    "PLUGINS_PATH": str(ROOT / "bus_worker" / "testing.py"),
    "WHISPER_MODEL": "pretend",
    "CACHE_ENABLED": "false",
}
"""The engine that only pretends, asked again each time."""
NOBODY = "nats://127.0.0.1:1"


def surroundings(**variables: str) -> dict[str, str]:
    """An environment that holds nothing of ours but `variables`."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "TMPDIR", "LANG"}}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


async def start(
    *arguments: str,
    cwd: Path,
    program: tuple[str, ...] = COMMAND,
    stdin: Any = None,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    **variables: str,
) -> asyncio.subprocess.Process:
    """Start it; the caller waits for it, or ends it (see `started`)."""
    return await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        cwd=cwd,
        env=surroundings(**variables),
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=die_with_parent(),
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill it if it still runs, and let go of its pipes: neither is to trouble the next test."""
    process._transport.close()  # kills it, too
    await process.wait()


@asynccontextmanager
async def started(*arguments: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """As `start`; whatever becomes of the test, the process ends with it."""
    process = await start(*arguments, **options)
    try:
        yield process
    finally:
        await end(process)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended, and what it said."""

    status: int | None
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it said on standard error, which must be one sentence of ours."""
        assert self.err.startswith("bus-worker: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("bus-worker: ").strip()


async def shell(
    *arguments: str, cwd: Path, stdin: bytes | None = None, limit: float = 60.0, **options: Any
) -> Outcome:
    """Run it to its end."""
    pipe = None if stdin is None else subprocess.PIPE
    async with (
        started(*arguments, cwd=cwd, stdin=pipe, **options) as process,
        asyncio.timeout(limit),
    ):
        out, err = await process.communicate(stdin)
    return Outcome(process.returncode, out.decode(), err.decode())
