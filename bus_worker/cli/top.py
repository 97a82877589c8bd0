"""`top`: every worker with its slots, rates and latencies, once or again and again."""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus_worker.cli.terminal import say
from bus_worker.client import TranscribeClient
from bus_worker.connection import open_client
from bus_worker.durations import Durations
from bus_worker.errors import BusWorkerError, Unavailable
from bus_worker.settings import load_settings

__all__ = ["run"]

CONNECT_LIMIT = 3.0
HEAD = ("WORKER", "MODEL", "STATE", "SLOTS", "JOBS", "REQUESTS", "A SECOND", "ERRORS", "HITS", "P50", "P95")  # fmt: skip
WIDEST = 48
HOME, ALONE, BACK = "\x1b[H\x1b[J", "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Wipe the screen; a screen of its own without a cursor; and the one that was there before."""

Found = Mapping[str, Mapping[str, Any]]


def run(args: Namespace) -> int:
    """Print one table, or show it until Ctrl-C."""
    once = args.once or not sys.stdout.isatty()
    return asyncio.run(_once() if once else _live(args.every))


async def _once() -> int:
    async with open_client(load_settings(), limit=CONNECT_LIMIT) as client:
        found = await client.figures()
    if not found:
        raise Unavailable("no worker is on the bus; start one with `bus-worker run`")
    say(table(found))
    return 0


async def _live(every: float) -> int:
    async with open_client(load_settings(), limit=CONNECT_LIMIT) as client:
        say(ALONE, end="")
        try:
            await _again_and_again(client, every)
        finally:
            say(BACK, end="")
    return 0


async def _again_and_again(client: TranscribeClient, every: float) -> None:
    before: Found = {}
    then = 0.0
    while True:
        try:
            found, now = await client.figures(), time.monotonic()
            text = table(found, before, now - then) if found else "no worker answers"
            before, then = found, now
        except BusWorkerError as exc:
            text = exc.message
        say(f"{HOME}{time.strftime('%H:%M:%S')}  Ctrl-C ends it\n\n{text}")
        await asyncio.sleep(every)


@dataclass(frozen=True, slots=True)
class _Counts:
    """What is counted up of one worker, or of all."""

    answers: int
    errors: int
    hits: int
    misses: int
    durations: Durations

    @classmethod
    def of(cls, all_of_them: list[Mapping[str, Any]]) -> "_Counts":
        """The sum of what they say; raises ValueError and the like where it is no figures of a worker."""
        total = sum(sum(one["answers"].values()) for one in all_of_them)
        caches = [one["cache"] for one in all_of_them]
        return cls(
            answers=total,
            errors=total - sum(one["answers"].get("ok", 0) for one in all_of_them),
            hits=sum(cache["hits"] + cache["shared"] for cache in caches),
            misses=sum(cache["misses"] for cache in caches),
            durations=Durations.joined(one["durations"] for one in all_of_them),
        )


def table(found: Found, before: Found | None = None, seconds: float = 0.0) -> str:
    """The workers, a line each, and a line for all.

    Args:
        before: what they said some seconds ago: rates and latencies are then those of the time between.
    """
    before = before or {}
    known = {name: one for name, one in sorted(found.items()) if _is_worker(one)}
    rows = [
        HEAD,
        *(_row(name, [one], [before.get(name, {})], seconds) for name, one in known.items()),
    ]
    if len(known) > 1:
        past = [before.get(name, {}) for name in known]
        rows.append(_row("all", list(known.values()), past, seconds))
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < 3 else cell.rjust(width)  # noqa: PLR2004 - the rest are figures
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(
    name: str, now: list[Mapping[str, Any]], before: list[Mapping[str, Any]], seconds: float
) -> tuple[str, ...]:
    counts = _Counts.of(now)
    then = [one for one in before if _is_worker(one)]
    past = _Counts.of(then) if seconds and len(then) == len(now) else None
    # A worker that was started anew under an old name counts from nothing.
    past = past if past and past.answers <= counts.answers else None
    lately = counts.durations.since(past.durations) if past else counts.durations
    asked = counts.hits + counts.misses
    return (
        _plain(name),
        _plain(", ".join(sorted({str(one["model"]) for one in now}))),
        _state(now),
        f"{sum(one['in_flight'] for one in now)}/{sum(one['slots'] for one in now)}",
        str(sum(one.get("jobs_in_hand", 0) for one in now)),
        str(counts.answers),
        f"{(counts.answers - past.answers) / seconds:.1f}" if past else "",
        str(counts.errors),
        f"{counts.hits / asked:.0%}" if asked else "",
        _shown(lately.quantile(0.5)),
        _shown(lately.quantile(0.95)),
    )


def _state(now: list[Mapping[str, Any]]) -> str:
    reasons = [list(one.get("reasons", [])) for one in now]
    if len(now) > 1:
        return f"{sum(not why for why in reasons)} of {len(now)} ready"
    return _plain(str(reasons[0][0])) if reasons[0] else "ready"


def _plain(text: str) -> str:
    """What a worker says of itself as a terminal can bear it."""
    return "".join(char for char in text[:WIDEST] if char.isprintable())


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _is_worker(one: Mapping[str, Any]) -> bool:
    """Whether these are a worker's figures: anybody on the bus may answer, and an older one says less."""
    try:
        _row("", [one], [], 0.0)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False
    return True
