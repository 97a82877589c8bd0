"""The check scripts as monitoring runs them, and somebody who stands where Slack is."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.docs import ROOT

SCRIPTS = ROOT / "deploy" / "scripts"


@dataclass
class Slack:
    """What was posted to a webhook; answers with `status`."""

    url: str = ""
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """What a check said."""
        return [message["text"] for message in self.messages]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (length,) = (line for line in head.split("\r\n") if line.lower().startswith("content-len"))
        body = json.loads(await reader.readexactly(int(length.split(":")[1])))
        assert head.startswith("POST /services/T0/secret HTTP/1.1")
        if self.status == 200:
            self.messages.append(body)
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\nok" % self.status)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def slack() -> AsyncIterator[Slack]:
    """A webhook of our own."""
    there = Slack()
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    async with server:
        there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/services/T0/secret"
        yield there


@dataclass(frozen=True)
class Said:
    """What came of one run."""

    status: int
    line: str

    @property
    def figures(self) -> dict[str, str]:
        """Performance data by name."""
        pairs = (each.partition("=") for each in self.line.partition(" | ")[2].split())
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Checks:
    """Runs the scripts with an empty home and without site-packages: they promise to need none."""

    home: Path

    async def __call__(self, script: str, *arguments: Any, **variables: str) -> Said:
        """One run, which ends with one line."""
        status, said = await self.output(script, *arguments, **variables)
        (line,) = said.splitlines()
        return Said(status, line)

    async def output(self, script: str, *arguments: Any, **variables: str) -> tuple[int, str]:
        """Exit status and all that a run said."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", str(SCRIPTS / script), *map(str, arguments),
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **variables},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert err == b"", err.decode()
        assert process.returncode is not None
        return process.returncode, out.decode()
