"""Programs in Node with the packages they name, installed once."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(folder: Path, *command: str) -> Path:
    """A folder in which `npm` has installed; skips without Node, except where everything must be tried."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            _missing(f"there is no {program} here")
    done = subprocess.run(
        ["npm", *command, "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if done.returncode:
        _missing(f"npm {command[0]} failed: {done.stderr.strip()[-300:]}")
    return folder


async def run_node(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """A program's status, output and complaint."""
    process = await asyncio.create_subprocess_exec(
        "node", *arguments,
        cwd=folder, env={**os.environ, **variables},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(40):
            out, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), complaint.decode()


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
