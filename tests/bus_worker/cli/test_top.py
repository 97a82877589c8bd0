"""The workers at a glance, from the shell."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bus_worker.cache import MemoryCache
from bus_worker.cli.top import BACK, HOME, table
from bus_worker.durations import Durations
from bus_worker.embedded import NatsServer
from bus_worker.errors import BadAudio
from bus_worker.plugin import Draft, NoOptions, stage
from tests.helpers.house import Workers
from tests.helpers.shell import shell, start


@stage(NoOptions, gives=("text",))
async def picky(draft: Draft, options: NoOptions) -> None:
    """Refuse one clip."""
    if draft.audio == b"bad":
        raise BadAudio("no")
    draft.text = "yes"


def figures(ok: int, seconds: float, **more: Any) -> dict[str, Any]:
    durations = Durations()
    for _ in range(ok):
        durations.add(seconds)
    return {
        "model": "base", "slots": 2, "in_flight": 1, "jobs_in_hand": 0, "reasons": [],
        "answers": {"ok": ok}, "cache": {"hits": 0, "misses": ok, "shared": 0},
        "durations": durations.to_map(), **more,
    }  # fmt: skip


def cells(text: str, line: int) -> list[str]:
    return [cell for cell in text.splitlines()[line].split("  ") if cell.strip()]


async def test_one_table_says_who_is_there_and_what_they_did(workers: Workers, tmp_path: Path):
    await workers.start(picky, cache=MemoryCache())
    await workers.start(picky, slots=3, model="other", figures={"reasons": ["it is told to stop"]})
    client = await workers.client()
    for _ in range(4):
        await client.transcribe(b"abc")
    with pytest.raises(BadAudio):
        await client.transcribe(b"bad")
    ended = await shell("top", "--once", cwd=tmp_path, NATS_URL=workers.server.url)
    assert (ended.status, ended.err) == (0, "")
    head, first, second, both = ended.out.splitlines()
    assert head.split()[:4] == ["WORKER", "MODEL", "STATE", "SLOTS"]
    assert first.split()[:8] == ["w1", "pretend", "ready", "0/1", "0", "5", "1", "75%"]
    assert first.endswith("ms")
    assert "it is told to stop" in second
    assert "1 of 2 ready" in both
    assert " 0/4 " in both


async def test_without_workers_it_says_so(bus_server: NatsServer, tmp_path: Path):
    ended = await shell("top", "--once", cwd=tmp_path, NATS_URL=bus_server.url)
    assert ended.status == 1
    assert "no worker is on the bus" in ended.sentence


async def test_on_a_terminal_it_goes_on_until_told_to_end(workers: Workers, tmp_path: Path):
    await workers.start(picky)
    ours, theirs = os.openpty()
    process = await start(
        "top", "--every", "0.1", cwd=tmp_path, stdout=theirs, NATS_URL=workers.server.url
    )
    os.close(theirs)
    seen = ""
    async with asyncio.timeout(30):
        while seen.count(HOME) < 2:
            seen += (await asyncio.to_thread(os.read, ours, 4096)).decode()
        process.send_signal(signal.SIGINT)
        while not seen.endswith(BACK):
            seen += (await asyncio.to_thread(os.read, ours, 4096)).decode()
        assert await process.wait() == 130
    os.close(ours)
    assert "w1" in seen


def test_rates_and_latencies_are_those_of_the_time_between():
    before, now = {"w": figures(100, 0.1)}, figures(100, 0.1)
    durations = Durations.joined([now["durations"], figures(20, 3.0)["durations"]])
    later = {"w": {**now, "answers": {"ok": 120}, "durations": durations.to_map()}}
    text = table(later, before, 2.0)
    said = cells(text, 1)
    assert len(said) == len(cells(text, 0)) == 11
    assert said[6].strip() == "10.0"
    assert [float(cell.split()[0]) for cell in said[-2:]] == pytest.approx([3.0, 3.0], rel=0.05)


def test_a_worker_that_began_anew_has_no_rate_yet():
    text = table({"w": figures(3, 0.1)}, {"w": figures(100, 0.1)}, 2.0)
    said = cells(text, 1)
    assert len(said) == 10
    assert float(said[-1].split()[0]) == pytest.approx(100, rel=0.05)
    assert said[-1].endswith("ms")


@pytest.mark.parametrize(
    "strange", [{}, {"answers": 1}, {"slots": "x"}, {"durations": {"9": "x"}}, {"cache": []}, {"reasons": 5}], ids=str
)  # fmt: skip
def test_what_is_no_worker_is_left_out(strange: dict[str, Any]):
    text = table({"w": figures(1, 0.1), "x": {**figures(1, 0.1), **strange} if strange else {}})
    assert len(text.splitlines()) == 2


def test_a_worker_cannot_order_the_terminal_about():
    text = table({"w\x1b[2J": figures(1, 0.1, model="base\x1b]0;title\x07" + "x" * 500)})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 220
