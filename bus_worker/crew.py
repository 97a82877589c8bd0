"""Worker processes, kept running: noticed when ready, started again when they die, drained at the end."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus_worker.client import TranscribeClient
from bus_worker.embedded import die_with_parent
from bus_worker.errors import BusWorkerError, SetupError
from bus_worker.settings import inherited

__all__ = ["FIRST_PAUSE", "LEAVE", "LONGEST_PAUSE", "Crew", "WorkerProcess"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between a death and the next start, doubling."""
STEADY = 30.0
"""Seconds of life after which a worker's next death counts as its first."""
TRIES = 3
"""Starts that may fail without a word while no worker has ever been ready."""
LOOK_EVERY = 0.3
REMIND_EVERY = 15.0
LEAVE = 5.0
"""Seconds past its drain that a worker has to leave."""
LONGEST_LINE = 1 << 20

# -P: the current folder may hold a `plugins` of somebody else's.
COMMAND = (sys.executable, "-P", "-m", "bus_worker", "run")
SENTENCES = ("bus-worker: ", "bus-gateway: ")


@dataclass(slots=True)
class WorkerProcess:
    """One place in the crew: the process that fills it now, and what is known of it."""

    number: int
    command: tuple[str, ...] = ()
    """What runs there, if not a worker."""
    process: asyncio.subprocess.Process | None = None
    started: float = 0.0
    ready: bool = False
    model: str = ""
    slots: int | None = None
    failures: int = 0
    sentence: str = ""
    """Its last word, if it ended with one."""
    _relay: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The process's id; 0 before the first."""
        return self.process.pid if self.process else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.returncode is None

    async def start(self, variables: Mapping[str, str]) -> None:
        """Fill the place."""
        self.ready, self.sentence, self.started = False, "", time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *(self.command or COMMAND),
            env=inherited(variables),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            preexec_fn=die_with_parent(),
        )
        assert self.process.stderr is not None  # noqa: S101 - asked for above
        self._relay = asyncio.create_task(self._pass_on(self.process.stderr), name="relay")

    async def _pass_on(self, said: asyncio.StreamReader) -> None:
        """What it says, as it says it; but a last sentence is kept, so that two do not say it twice."""
        while True:
            try:
                line = await said.readline()
            except ValueError:
                continue  # a line over the limit: what was read of it is gone
            if not line:
                return
            text = line.decode(errors="backslashreplace")
            if text.startswith(SENTENCES):
                self.sentence = text.partition(": ")[2].strip()
            else:
                # Where nobody reads any more, the worker must still be able to write.
                with contextlib.suppress(OSError):
                    sys.stderr.write(text)
                    sys.stderr.flush()

    async def ended(self) -> str:
        """Wait for its end; how it ended."""
        assert self.process is not None and self._relay is not None  # noqa: S101, PT018 - start() set both
        status = await self.process.wait()
        await asyncio.wait({self._relay}, timeout=1)
        self._relay.cancel()
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}{f' ({self.sentence})' if self.sentence else ''}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.alive and self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Crew:
    """A number of workers, each of which is replaced when it dies."""

    def __init__(
        self,
        client: TranscribeClient,
        count: int,
        variables: Mapping[str, str],
        *,
        drain_timeout: float,
        say: Callable[[str], None],
    ) -> None:
        """Start nothing yet.

        Args:
            client: on the bus that the workers join; it sees who is ready.
            variables: over ours, for their environment.
        """
        self.workers = [WorkerProcess(number) for number in range(1, count + 1)]
        self._client = client
        self._variables = variables
        self._drain_timeout = drain_timeout
        self._say = say
        self._was_ready = False
        self._tasks: set[asyncio.Task[None]] = set()

    def also(self, keeper: Coroutine[Any, Any, None]) -> None:
        """Keep something else beside the workers."""
        self._tasks.add(asyncio.create_task(keeper, name="keeper"))

    async def run(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Keep all workers running; `on_ready` is called once, when all are.

        Raises:
            SetupError: a worker cannot start as things are set up; its own sentence.
        """
        for worker in self.workers:
            keeping = self._keep(worker)
            self._tasks.add(asyncio.create_task(keeping, name=f"worker-{worker.number}"))
        self._tasks.add(asyncio.create_task(self._look(on_ready), name="look"))
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self, now: asyncio.Event) -> None:
        """Let the workers finish what they have in hand and leave; kill them when `now` is set."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        leaving = asyncio.create_task(self._all_gone(), name="leaving")
        hurry = asyncio.create_task(now.wait(), name="hurry")
        await asyncio.wait(
            {leaving, hurry},
            timeout=self._drain_timeout + LEAVE,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurry.cancel()
        for worker in self.workers:
            worker.send(signal.SIGKILL)
        await asyncio.wait({leaving, hurry})

    async def _all_gone(self) -> None:
        for worker in self.workers:
            if worker.process is not None:
                await worker.ended()

    async def _keep(self, worker: WorkerProcess) -> None:
        """Fill one place again and again."""
        pause = FIRST_PAUSE
        while True:
            await worker.start(self._variables)
            how = await worker.ended()
            if worker.ready and time.monotonic() - worker.started > STEADY:
                pause = FIRST_PAUSE
            if not worker.ready:
                self._judge(worker, how)
            self._say(
                f"worker {worker.number} (pid {worker.pid}) {how}; starting it again in {pause:g} s"
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _judge(self, worker: WorkerProcess, how: str) -> None:
        """Give up where starting again cannot help: nobody has ever been ready, and it says why."""
        worker.failures += 1
        if self._was_ready:
            return
        if worker.sentence:
            raise SetupError(worker.sentence)
        if worker.failures >= TRIES:
            raise SetupError(
                f"worker {worker.number} {how} before it was ready, {worker.failures} times;"
                " what it said is above"
            )

    async def _look(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Ask the bus who is there, as long as somebody is missing."""
        told, began = False, time.monotonic()
        while True:
            missing = [worker for worker in self.workers if not worker.ready]
            if not missing:
                if not told:
                    told = True
                    await on_ready()
                await asyncio.sleep(LOOK_EVERY)
                began = time.monotonic()
                continue
            await self._find(missing, told=told)
            if time.monotonic() - began > REMIND_EVERY:
                began = time.monotonic()
                names = ", ".join(str(worker.number) for worker in missing)
                self._say(f"still starting: worker {names}")

    async def _find(self, missing: list[WorkerProcess], *, told: bool) -> None:
        """Mark those of the missing that answer on the bus."""
        found = []
        # The bus may be away for a moment: ask again.
        with contextlib.suppress(TimeoutError, BusWorkerError):
            async with asyncio.timeout(REMIND_EVERY):
                found = await self._client.workers(LOOK_EVERY)
        here = {worker.id.rpartition("-")[0]: worker for worker in found}
        for worker in missing:
            info = here.get(f"{socket.gethostname()}-{worker.pid}")
            if info is not None:
                worker.ready = self._was_ready = True
                worker.model, worker.slots, worker.failures = info.model, info.slots, 0
                if told:
                    self._say(f"worker {worker.number} (pid {worker.pid}) is ready")
