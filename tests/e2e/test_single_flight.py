"""Fifty equal requests over two worker processes: heard once; heard twice where the first is killed."""

import asyncio
import os
import signal
from pathlib import Path

from bus_worker.client import TranscribeClient
from bus_worker.embedded import ValkeyServer
from tests.helpers.house import until
from tests.helpers.processes import Processes, WorkerProcess

TALLY = '''
"""Write down who runs the engine."""
import os
from pathlib import Path
from bus_worker.plugin import Draft, Options, stage
from pydantic import BaseModel

class Where(BaseModel):
    path: Path = Path("/dev/null")

@stage(Where)
async def tally(draft: Draft, options: Where) -> None:
    """Write down the process that hears what was asked."""
    with options.path.open("a") as book:
        print(os.getpid(), file=book, flush=True)
'''


async def pair(
    processes: Processes, valkey: ValkeyServer, folder: Path, seconds: float
) -> tuple[list[WorkerProcess], Path]:
    plugin, book = folder / "tally.py", folder / "book"
    plugin.write_text(TALLY)
    book.touch()
    workers = await processes.start(
        2,
        plugin,
        PIPELINE="tally,pretend",
        TALLY__PATH=str(book),
        PRETEND__SECONDS=str(seconds),
        CACHE_ENABLED="true",
        REDIS_URL=valkey.url,
    )
    return workers, book


async def test_fifty_equal_requests_are_heard_once(
    processes: Processes, caller: TranscribeClient, valkey: ValkeyServer, tmp_path: Path
):
    workers, book = await pair(processes, valkey, tmp_path, 1.0)
    answers = await asyncio.gather(*(caller.transcribe(b"12345") for _ in range(50)))
    assert {a.text for a in answers} == {"5 bytes"}
    assert {a.worker_id for a in answers} == {w.worker_id for w in workers}
    assert len(book.read_text().split()) == 1


async def test_the_worker_that_hears_is_killed_and_the_other_takes_over(
    processes: Processes, caller: TranscribeClient, valkey: ValkeyServer, tmp_path: Path
):
    _, book = await pair(processes, valkey, tmp_path, 2.0)
    calls = [asyncio.create_task(caller.transcribe(b"12345")) for _ in range(50)]
    await until(lambda: book.read_text().endswith("\n"))
    await asyncio.sleep(1)
    killed = int(book.read_text())
    os.kill(killed, signal.SIGKILL)
    answers = await asyncio.gather(*calls)
    assert {a.text for a in answers} == {"5 bytes"}
    runs = list(map(int, book.read_text().split()))
    assert runs[0] == killed
    assert len(runs) == 2
    assert runs[1] != killed
