"""Workers kept running: what is done about one that will not start, one that dies, one that stays."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bus_worker import crew as crew_module
from bus_worker.client import TranscribeClient
from bus_worker.crew import Crew, WorkerProcess
from bus_worker.embedded import NatsServer
from bus_worker.errors import SetupError
from tests.helpers.house import until


async def nothing() -> None:
    """What is done when all are ready."""


@pytest.fixture
async def make(bus_server: NatsServer, monkeypatch: pytest.MonkeyPatch):
    """Makes a crew of a Python program that stands for a worker."""
    said: list[str] = []
    made: list[Crew] = []

    def one(program: str, count: int = 1, **options) -> tuple[Crew, list[str]]:
        monkeypatch.setattr(crew_module, "COMMAND", (sys.executable, "-c", program))
        monkeypatch.setattr(crew_module, "FIRST_PAUSE", 0.01)
        crew = Crew(client, count, {}, **{"drain_timeout": 1, "say": said.append, **options})
        made.append(crew)
        return crew, said

    async with TranscribeClient(bus_server.url) as client:
        yield one
        now = asyncio.Event()
        now.set()
        for crew in made:
            await crew.stop(now)
            assert not any(worker.alive for worker in crew.workers)


async def test_a_sentence_before_anybody_was_ready_is_the_end(make):
    program = "import sys; print('noise', file=sys.stderr); sys.exit('bus-worker: X=1: too low')"
    crew, said = make(program, count=2)
    with pytest.raises(SetupError, match=r"^X=1: too low$"):
        async with asyncio.timeout(30):
            await crew.run(nothing)
    assert said == []


async def test_a_start_that_fails_without_a_word_is_tried_three_times(make):
    crew, said = make("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(
        SetupError, match="worker 1 was killed by SIGKILL before it was ready, 3 times"
    ):
        async with asyncio.timeout(30):
            await crew.run(nothing)
    assert len(said) == 2
    assert "was killed by SIGKILL; starting it again in 0.01 s" in said[0]
    assert "starting it again in 0.02 s" in said[1]


async def test_a_worker_fails_for_ever_without_ending_those_that_were_ready(make):
    crew, said = make("import sys; sys.exit('bus-worker: gone wrong since')")
    crew._was_ready = True
    running = asyncio.create_task(crew.run(nothing))
    await until(lambda: len(said) >= 5, 30)
    assert not running.done()
    assert "ended with status 1 (gone wrong since); starting it again" in said[0]
    running.cancel()
    await asyncio.wait({running})


async def test_what_a_worker_says_is_passed_on_but_its_last_sentence(
    capfd: pytest.CaptureFixture[str], make
):
    program = "import sys; e = sys.stderr; e.write('one\\n\\xfc\\nbus-worker: so\\n' + 'x' * 70000)"
    make(program)
    worker = WorkerProcess(1)
    await worker.start({})
    assert await worker.ended() == "ended with status 0 (so)"
    said = capfd.readouterr().err
    assert said.startswith("one\n")
    assert said.endswith("x" * 70_000)
    assert "bus-worker" not in said


async def test_a_line_without_end_does_not_stop_the_worker(
    capfd: pytest.CaptureFixture[str], make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(crew_module, "LONGEST_LINE", 1000)
    make("import sys; sys.stderr.write('x' * 100_000 + '\\nthen\\n'); sys.exit(7)")
    worker = WorkerProcess(1)
    await worker.start({})
    async with asyncio.timeout(30):
        assert await worker.ended() == "ended with status 7"
    assert capfd.readouterr().err.endswith("then\n")


STAYS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[-1], "told").touch())
pathlib.Path(sys.argv[-1], "here").touch()
time.sleep(60); time.sleep(60)
"""


@pytest.mark.parametrize(
    ("drain", "hurry"), [(0.1, False), (60, True)], ids=["after the drain", "at once when hurried"]
)
async def test_one_that_stays_is_killed(
    drain: float, *, hurry: bool, make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    crew, _ = make(STAYS, drain_timeout=drain)
    monkeypatch.setattr(crew_module, "COMMAND", (*crew_module.COMMAND, str(tmp_path)))
    monkeypatch.setattr(crew_module, "LEAVE", 0.4)
    running = asyncio.create_task(crew.run(nothing))
    await until((tmp_path / "here").exists, 30)
    (worker,) = crew.workers
    now = asyncio.Event()
    stopping = asyncio.create_task(crew.stop(now))
    await until((tmp_path / "told").exists, 30)
    if hurry:
        now.set()
    async with asyncio.timeout(30):
        await stopping
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    with pytest.raises(asyncio.CancelledError):
        await running
