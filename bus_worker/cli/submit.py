"""`jobs submit`: files handed in as jobs, read as they go; with `--wait` their transcripts, too."""

import asyncio
import os
import signal
import stat
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bus_worker.cli.following import FAILED, follow
from bus_worker.cli.output import Output
from bus_worker.cli.terminal import complain, say
from bus_worker.client import Job, TranscribeClient
from bus_worker.errors import BusWorkerError

__all__ = ["run"]

PIECE = 256 * 1024
"""Bytes of a file that are read at a time."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to hand in, open already: a pipe's opening waits, and Ctrl-C must end that."""

    name: str
    file: BinaryIO

    @property
    def format(self) -> str | None:
        """The hint that its name gives."""
        return Path(self.name).suffix.removeprefix(".")[:100] or None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes; a pipe is not read in a thread, which would outlive Ctrl-C."""
        if stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
            while piece := await asyncio.to_thread(self.file.read, PIECE):
                yield piece
            return
        reader = asyncio.StreamReader(PIECE)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self.file
        )
        try:
            while piece := await reader.read(PIECE):
                yield piece
        finally:
            transport.close()


def run(
    args: Namespace,
    on_the_bus: Callable[[Callable[[TranscribeClient, Namespace], Awaitable[int]], Namespace], int],
) -> int:
    """Hand each file in; one that cannot be is told of, and the others go on.

    Args:
        on_the_bus: runs an action with a client.
    """
    output = Output(args.files, args.format or "text")
    wrong = _wrong(args, output)
    if wrong:
        complain(wrong)
        return 2
    with ExitStack() as stack:
        handing_in = _HandingIn(args, output, _opened(args.files, stack))
        try:
            return on_the_bus(handing_in.act, args)
        except KeyboardInterrupt:
            for job in handing_in.waited_for:
                complain(f"job {job.id} goes on; `bus-worker jobs watch {job.id}` follows it")
            return 128 + signal.SIGINT


def _wrong(args: Namespace, output: Output) -> str | None:
    if args.idempotency_key is not None and len(args.files) > 1:
        return "--idempotency-key names one job: hand several files in one by one"
    if args.format is not None and not args.wait:
        return "--format needs --wait"
    return "hand several files in one by one for srt and vtt" if output.wrong else None


def _opened(names: list[str], stack: ExitStack) -> list[_Source]:
    """The files that can be read; the others are told of before anything is handed in."""
    sources = []
    for name in names:
        if name == "-":
            sources.append(_Source(name, sys.stdin.buffer))
            continue
        try:
            file = stack.enter_context(Path(name).open("rb"))  # noqa: SIM115 - the stack closes it
        except OSError as exc:
            complain(f"{name}: {(exc.strerror or str(exc)).lower()}")
        else:
            sources.append(_Source(name, file))
    return sources


class _HandingIn:
    """Hands files in, and waits for them if that is asked."""

    def __init__(self, args: Namespace, output: Output, sources: list[_Source]) -> None:
        self._args = args
        self._output = output
        self._sources = sources
        self._well = len(sources) == len(args.files)
        self.waited_for: list[Job] = []

    async def act(self, client: TranscribeClient, _: Namespace) -> int:
        """Do it; the exit status."""
        jobs: list[tuple[str, Job]] = []
        for source in self._sources:
            try:
                job = await client.submit(source.pieces(), format=source.format, **self._asked())
            except (BusWorkerError, OSError) as exc:
                self._failed(source.name, exc)
                continue
            if self._args.wait:
                jobs.append((source.name, job))
                self.waited_for.append(job)
            else:
                say(f"{job.id}  {source.name}" if len(self._args.files) > 1 else job.id)
        for name, job in jobs:
            await self._wait(name, job)
        return 0 if self._well else FAILED

    async def _wait(self, name: str, job: Job) -> None:
        try:
            transcript = await follow(job, name)
        except BusWorkerError as exc:
            self._failed(name, exc)
        else:
            self._output.write(name, transcript)
        self.waited_for.remove(job)

    def _failed(self, name: str, exc: BusWorkerError | OSError) -> None:
        self._well = False
        why = exc.message if isinstance(exc, BusWorkerError) else exc.strerror or str(exc)
        complain(f"{name}: {why}")

    def _asked(self) -> dict[str, Any]:
        """What is asked of every file, without what nobody set."""
        args = self._args
        return {
            "task": args.task,
            "language": args.language,
            "prompt": args.prompt,
            "word_timestamps": args.words or None,
            "priority": args.priority,
            "model": args.model,
            "webhook": args.webhook,
            "reply_to": args.reply_to,
            "idempotency_key": args.idempotency_key,
        }
