"""A process for each contender, told over a pipe what to hear: its memory is its own, its threads are in nobody's way.

`python -m bus_worker.bench.seat` is that process.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bus_worker.bench.clips import Clip, read_clips
from bus_worker.bench.contenders import Setup, opened
from bus_worker.bench.engines import Engine, Heard, Timed, hear_all
from bus_worker.embedded import die_with_parent
from bus_worker.errors import BusWorkerError, SetupError

__all__ = ["Run", "Seat", "Wanted", "peak_memory", "seated"]

START_TIMEOUT, TURN_TIMEOUT, STOP_TIMEOUT = 180.0, 3600.0, 20.0
LINE = 1 << 26
"""Bytes of the longest answer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which clips there are; each process reads them itself."""

    place: str
    longest: float = 30.0
    languages: list[str] | None = None

    def read(self) -> list[Clip]:
        """Read them, see `read_clips`."""
        languages = None if self.languages is None else frozenset(self.languages)
        return read_clips(Path(self.place), longest=self.longest, languages=languages)


@dataclass(slots=True)
class Run(Timed):
    """What a contender made of its turns."""

    failed: dict[str, str] = field(default_factory=dict)
    """Clips that it raised for, with what it said."""
    requests: int = 0
    audio: float = 0.0
    """Seconds of sound in them."""
    memory: float | None = None
    """Megabytes that it held at most, with all the processes it started; None where Linux does not tell."""


class Seat:
    """A contender in its process."""

    def __init__(self, who: str, process: asyncio.subprocess.Process) -> None:
        self.who = who
        self._process = process
        self._said: deque[str] = deque(maxlen=5)
        self._reading = asyncio.create_task(self._read_on(), name=f"seat-{who}")

    async def hear(self, clips: Sequence[Clip], at_once: int, *, told: bool, into: Run) -> None:
        """Have it hear these, so many at once.

        Args:
            told: whether it is told the language of each.
        """
        await self._tell({"clips": [clip.name for clip in clips], "at_once": at_once, "told": told})
        said = await self._answer(TURN_TIMEOUT)
        into.heard |= {name: Heard(each[0], each[1], []) for name, each in said["heard"].items()}
        into.failed |= said["failed"]
        into.each += said["each"]
        into.wall += said["wall"]
        into.requests += len(clips)
        into.audio += sum(clip.seconds for clip in clips)
        into.memory = said["memory"]

    async def ready(self) -> None:
        """Wait until it is open and warm.

        Raises:
            SetupError: it cannot be; with its last words.
        """
        await self._answer(START_TIMEOUT)

    async def leave(self) -> None:
        """End it and what it started."""
        assert self._process.stdin is not None  # noqa: S101 - asked for where it is started
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self._process.terminate()
            await self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._reading

    async def _tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as above
        with contextlib.suppress(
            ConnectionError
        ):  # it has ended; the answer that is missing says so
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            await self._process.stdin.drain()

    async def _answer(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - as above
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), limit)
        except TimeoutError as exc:
            raise SetupError(f"{self.who}: no answer in {limit:.0f} s") from exc
        if not line:
            await self._reading
            raise SetupError(f"{self.who}: {' '.join(self._said) or 'ended without a word'}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise SetupError(f"{self.who}: {said['error']}")
        return said

    async def _read_on(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - as above
        async for raw in self._process.stderr:
            self._said.append(raw.decode(errors="replace").strip())


@asynccontextmanager
async def seated(who: str, setup: Setup, wanted: Wanted) -> AsyncIterator[Seat]:
    """A contender, open and warm, in a process of its own until the end of the block.

    Raises:
        SetupError: it cannot be opened.
    """
    task = json.dumps({"who": who, "setup": asdict(setup), "wanted": asdict(wanted)})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", __name__, task,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=LINE,
        start_new_session=True,  # Ctrl-C is ours to pass on
        preexec_fn=die_with_parent(),
    )  # fmt: skip
    seat = Seat(who, process)
    try:
        await seat.ready()
        yield seat
    finally:
        await seat.leave()


def peak_memory() -> float | None:
    """Megabytes that this process and those below it have held at most, each by its own peak."""
    try:
        return round(sum(map(_peak, _family(os.getpid()))) / 1024, 1)
    except OSError:
        return None


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _family(int(child))
    return found


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0.0)


async def _serve(task: dict[str, Any], out: TextIO) -> None:
    """Open the contender, then hear what each line of standard input names."""
    clips = {clip.name: clip for clip in Wanted(**task["wanted"]).read()}
    async with opened(task["who"], Setup(**task["setup"])) as engine:
        first = next(iter(clips.values()))
        for told in (True, False):
            await hear_all(engine, [first], 1, told=told, words=False, into=Timed())
        _say(out, {"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            turn = json.loads(line)
            part = [clips[name] for name in turn["clips"]]
            _say(out, await _turn(engine, part, turn["at_once"], told=turn["told"]))


async def _turn(engine: Engine, part: list[Clip], at_once: int, *, told: bool) -> dict[str, Any]:
    run, failed = Timed(), {}

    async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
        try:
            return await engine(clip, language, words)
        except Exception as exc:  # noqa: BLE001 - told in the answer, and counted there
            failed[clip.name] = f"{type(exc).__name__}: {exc}"
            return Heard("", None, [])

    await hear_all(hear, part, at_once, told=told, words=False, into=run)
    return {
        "heard": {name: (each.text, each.language) for name, each in run.heard.items()},
        "failed": failed,
        "each": run.each,
        "wall": run.wall,
        "memory": peak_memory(),
    }


def _say(out: TextIO, what: dict[str, Any]) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


def _main() -> int:
    # What a library prints must not be taken for an answer.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            asyncio.run(_serve(json.loads(sys.argv[1]), out))
        except BusWorkerError as exc:
            _say(out, {"error": exc.message})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
