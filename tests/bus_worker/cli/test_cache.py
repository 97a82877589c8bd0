"""The workers' caches from the shell."""

from pathlib import Path

from bus_worker.cache import MemoryCache
from bus_worker.embedded import NatsServer
from tests.helpers.house import Workers
from tests.helpers.shell import shell


async def test_the_cache_is_looked_at_and_emptied(workers: Workers, tmp_path: Path):
    for _ in range(2):
        await workers.start(cache=MemoryCache(), seconds=0)
    client = await workers.client()
    for n in range(8):
        await client.transcribe(bytes(n + 1))
    on_bus = {"cwd": tmp_path, "NATS_URL": workers.server.url}
    stats = await shell("cache", "stats", **on_bus)
    assert (stats.status, stats.err) == (0, "")
    lines = stats.out.splitlines()
    assert lines[0].startswith("w1  hits 0  misses ")
    assert "kind memory" in lines[1]
    assert lines[2] == "all: hits 0, misses 8, 0% hits"
    cleared = await shell("cache", "clear", **on_bus)
    assert cleared.out == "8 transcripts removed, 2 workers asked\n"
    assert (await shell("cache", "clear", **on_bus)).out.startswith("0 transcripts")


async def test_without_workers_it_says_so(bus_server: NatsServer, tmp_path: Path):
    for action in ("clear", "stats"):
        ended = await shell("cache", action, cwd=tmp_path, NATS_URL=bus_server.url)
        assert ended.status == 1
        assert "no worker is on the bus" in ended.sentence
