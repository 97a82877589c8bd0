"""`cache`: what the workers remember: looked at, or emptied."""

import asyncio
from argparse import Namespace

from bus_worker.cli.terminal import say
from bus_worker.client import TranscribeClient
from bus_worker.connection import open_client
from bus_worker.errors import Unavailable
from bus_worker.settings import load_settings

__all__ = ["run"]

CONNECT_LIMIT = 3.0


def run(args: Namespace) -> int:
    """Clear, or print figures."""
    return asyncio.run(_run(args.action))


async def _run(action: str) -> int:
    async with open_client(load_settings(), limit=CONNECT_LIMIT) as client:
        if action == "clear":
            removed = await client.clear_cache()
            s = "s"[: len(removed) != 1]
            say(f"{sum(removed.values())} transcripts removed, {len(removed)} worker{s} asked")
        else:
            await _stats(client)
    return 0


async def _stats(client: TranscribeClient) -> None:
    found = await client.cache_figures()
    if not found:
        raise Unavailable("no worker is on the bus; start one with `bus-worker run`")
    for worker, figures in sorted(found.items()):
        say(f"{worker}  {'  '.join(f'{name} {value}' for name, value in figures.items())}")
    hits, misses = (sum(f.get(name, 0) for f in found.values()) for name in ("hits", "misses"))
    rate = f", {hits / (hits + misses):.0%} hits" if hits + misses else ""
    say(f"all: hits {hits}, misses {misses}{rate}")
