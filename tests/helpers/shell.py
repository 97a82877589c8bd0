"""`bus-worker` as a person calls it: in a folder, with a few variables, to its end."""

import asyncio
import os
import subprocess
import sys
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
    **variables: str,
) -> asyncio.subprocess.Process:
    """Start it; the caller waits for it."""
    return await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        cwd=cwd,
        env=surroundings(**variables),
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent(),
    )


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
    *arguments: str, cwd: Path, stdin: bytes | None = None, limit: float = 30.0, **options: Any
) -> Outcome:
    """Run it to its end."""
    pipe = None if stdin is None else subprocess.PIPE
    process = await start(*arguments, cwd=cwd, stdin=pipe, **options)
    async with asyncio.timeout(limit):
        out, err = await process.communicate(stdin)
    return Outcome(process.returncode, out.decode(), err.decode())
