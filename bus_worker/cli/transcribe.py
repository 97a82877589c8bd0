"""`transcribe`: files in, transcripts out in the order given, several in flight at once."""

import asyncio
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_worker.cli.ears import Ears, Wish, over_the_bus
from bus_worker.cli.output import Output
from bus_worker.cli.progress import Progress
from bus_worker.cli.terminal import complain
from bus_worker.errors import BusWorkerError
from bus_worker.messages import Transcript

__all__ = ["run"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file to hear; `data` where it was read already."""

    name: str
    data: bytes | None = None

    @property
    def format(self) -> str | None:
        """The hint that its name gives."""
        return Path(self.name).suffix.removeprefix(".")[:100] or None

    async def read(self) -> bytes:
        """Its bytes."""
        if self.data is not None:
            return self.data
        return await asyncio.to_thread(Path(self.name).read_bytes)


def run(args: Namespace) -> int:
    """Transcribe each file; a file that fails is told of, and the others go on."""
    output = Output(args.files, args.format, Path(args.output) if args.output else None)
    if output.wrong:
        complain(output.wrong)
        return 2
    sources = list(_readable(args.files))
    if not sources:
        return 1
    well = _run(args, sources, output)
    return int(not well or len(sources) < len(args.files))


def _run(args: Namespace, sources: list[Source], output: Output) -> bool:
    wish = Wish(args.model, args.timeout, _options(args))
    if args.local:
        from bus_worker.cli.local import in_this_process  # noqa: PLC0415 - needs the worker extra

        ears = in_this_process(wish)
    else:
        ears = over_the_bus(wish, several=len(sources) > 1)
    try:
        return asyncio.run(_hear_all(ears, sources, output))
    except asyncio.CancelledError:
        status = 128 + signal.SIGTERM
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.stdout.flush()
    os._exit(status)  # a stage's thread that goes on hearing must not keep the process


def _options(args: Namespace) -> dict[str, Any]:
    """The request's options, without those that nobody set."""
    options: dict[str, Any] = {"task": args.task}
    if args.language:
        options["language"] = args.language
    if args.prompt:
        options["prompt"] = args.prompt
    if args.words:
        options["word_timestamps"] = True
    return options


def _readable(names: Iterable[str]) -> Iterable[Source]:
    """The files that can be read; the others are told of before anything starts."""
    for name in names:
        try:
            yield _source(name)
        except OSError as exc:
            _complain(name, exc)


def _source(name: str) -> Source:
    """Pipes are read here and now: a thread blocked on one would keep the process after Ctrl-C."""
    if name == "-":
        return Source(name, sys.stdin.buffer.read())
    path = Path(name)
    if path.is_fifo():
        return Source(name, path.read_bytes())
    with path.open("rb"):
        return Source(name)


async def _hear_all(
    opening: AbstractAsyncContextManager[Ears], sources: list[Source], output: Output
) -> bool:
    """Hear all files, write each as soon as those before it are; whether all went well."""
    me = asyncio.current_task()
    assert me is not None  # noqa: S101 - this is a coroutine
    # As Ctrl-C: nobody is to work on for one who has gone.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with Progress(len(sources)) as progress, opening as ears:
        room = asyncio.Semaphore(ears.at_once)

        async def hear(source: Source) -> Transcript:
            async with room:
                try:
                    return await ears.hear(await source.read(), source.format)
                finally:
                    progress.advance()

        tasks = [asyncio.create_task(hear(source), name=source.name) for source in sources]
        try:
            return await _write_all(sources, tasks, output, progress)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _write_all(
    sources: list[Source],
    tasks: list[asyncio.Task[Transcript]],
    output: Output,
    progress: Progress,
) -> bool:
    well = True
    for source, task in zip(sources, tasks, strict=True):
        await asyncio.wait({task})
        with progress.hidden():
            try:
                output.write(source.name, task.result())
            except BrokenPipeError:
                raise
            except (BusWorkerError, OSError) as exc:
                well = False
                _complain(source.name, exc)
    return well


def _complain(name: str, exc: BusWorkerError | OSError) -> None:
    why = exc.message if isinstance(exc, BusWorkerError) else (exc.strerror or str(exc)).lower()
    complain(f"{name}: {why}")
