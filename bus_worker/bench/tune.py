"""`bus-worker bench --tune`: which replicas, threads, batch and slots suit this machine, found by measuring them."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from bus_worker.bench.clips import Clip
from bus_worker.bench.contenders import VIA, Setup
from bus_worker.bench.contest import ROUNDS, spaced
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.bench.seat import Run, Seat, Wanted, seated

__all__ = ["Found", "Try", "advice", "choose_shape", "choose_slots", "shapes", "tune"]

CLIPS = 16
TURNS = 2
BATCHES = {"cpu": (2, 4, 8), "cuda": (8, 16, 32)}
ALIKE = 0.95
"""Of the fastest's throughput: who has so much is as fast, and the quickest alone among them is taken."""
WORTH = 1.10
"""More requests in hand must make a worker so many times as fast, for an idle one could have taken them."""


@dataclass(frozen=True, slots=True)
class Try:
    """Settings, and what was found with them."""

    replicas: int
    threads: int
    batch: int
    slots: int
    speed: float = 0.0
    """Times real time, as many requests in hand as there are slots."""
    alone: float = 0.0
    """Median seconds of a request that has the machine to itself."""
    busy: float = 0.0
    """Median seconds of one while every slot is taken."""
    memory: float | None = None

    @property
    def row(self) -> Row:
        """For a table."""
        return {
            "replicas": self.replicas,
            "threads": self.threads,
            "batch": self.batch,
            "slots": self.slots,
            "x real time": round(self.speed, 2),
            "p50 ms": round(self.busy * 1000),
            "alone, p50 ms": round(self.alone * 1000),
            "peak MB": "" if self.memory is None else round(self.memory),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured, and what follows."""

    by_shape: Sequence[Try]
    by_slots: Sequence[Try]
    sections: dict[str, Section]

    @property
    def best(self) -> Try:
        """What is taken."""
        return choose_slots(self.by_slots)

    @property
    def settings(self) -> dict[str, int]:
        """The variables that say so."""
        return {
            "WHISPER_REPLICAS": self.best.replicas,
            "WHISPER_THREADS": self.best.threads,
            "WHISPER__BATCH": self.best.batch,
            "WORKER_SLOTS": self.best.slots,
        }


async def tune(
    wanted: Wanted, setup: Setup, most: int | None, tell: Callable[[str], None]
) -> Found:
    """Shapes first, then batches and slots with the best of them; each list in turns, the language given.

    Args:
        setup: its replicas times its threads are the cores there are.
        most: clips that each hears.
    """
    clips = spaced(wanted.read(), most or CLIPS)
    tell(f"{len(clips)} clips, {sum(clip.seconds for clip in clips):.0f} s; replicas and threads")
    by_shape = await _measured(
        [Try(replicas, threads, 1, replicas) for replicas, threads in shapes(setup)],
        wanted, setup, clips,
    )  # fmt: skip
    best = choose_shape(by_shape)
    tell(f"{best.replicas} x {best.threads}; batches and slots")
    slots = [replace(best, slots=best.replicas + extra) for extra in (0, 1)]
    batches = [
        replace(best, batch=batch, slots=best.replicas * batch) for batch in BATCHES[setup.device]
    ]
    by_slots = await _measured([*slots, *batches], wanted, setup, clips)
    what = f"model {setup.name}, {setup.compute} on {setup.device}"
    sections = {
        "shape": Section(f"Replicas and threads, {what}", [one.row for one in by_shape], _SHAPE),
        "slots": Section(f"Batches and slots, {what}", [one.row for one in by_slots], _SLOTS),
    }
    return Found(by_shape, by_slots, sections)


def shapes(setup: Setup) -> list[tuple[int, int]]:
    """Ways to share the cores out among replicas, as (replicas, threads); on a GPU, one or two replicas."""
    if setup.device == "cuda":
        return [(1, setup.threads), (2, setup.threads)]
    cores = setup.replicas * setup.threads
    halved = (cores >> step for step in range(cores.bit_length()))
    return [(replicas, cores // replicas) for replicas in halved]


def choose_shape(tries: Sequence[Try]) -> Try:
    """Of the fastest, the one that is quickest for a lone request."""
    top = max(one.speed for one in tries)
    return min((one for one in tries if one.speed >= ALIKE * top), key=lambda one: one.alone)


def choose_slots(tries: Iterable[Try]) -> Try:
    """The fewest slots that none with more of them beats by a tenth."""
    best, *rest = sorted(tries, key=lambda one: one.slots)
    for one in rest:
        best = one if one.speed >= WORTH * best.speed else best
    return best


def advice(found: Found) -> str:
    """Lines for a `.env`, with the figures that say why."""
    best = found.best
    compared = "; ".join(f"{t.replicas} x {t.threads}: {t.speed:.1f}" for t in found.by_shape)
    tried = "; ".join(f"{t.batch} ({t.slots} slots): {t.speed:.1f}" for t in found.by_slots)
    why = {
        "WHISPER_REPLICAS": f"x real time: {compared}",
        "WHISPER_THREADS": f"a lone request: {best.alone * 1000:.0f} ms",
        "WHISPER__BATCH": f"x real time: {tried}",
        "WORKER_SLOTS": f"with all taken: {best.busy * 1000:.0f} ms a request",
    }
    lines = [f"{f'{name}={value}':<20} # {why[name]}" for name, value in found.settings.items()]
    head = "# for one worker that has the machine to itself (API_WORKERS=1); several share the replicas out"
    return "\n".join([head, *lines])


_SHAPE = "Slots are requests in hand. Taken: the quickest alone of those within 5 % of the fastest."
_SLOTS = (
    "More in hand are taken where they make it a tenth faster: an idle worker could have had them."
)


async def _measured(
    tries: Sequence[Try], wanted: Wanted, setup: Setup, clips: Sequence[Clip]
) -> list[Try]:
    """All of them in turns, forth and back."""
    async with AsyncExitStack() as stack:
        sitting: dict[tuple[int, int, int], Seat] = {}
        for one in tries:
            key = (one.replicas, one.threads, one.batch)
            if key not in sitting:
                opening = seated(VIA["engine"], _with(setup, one), wanted)
                sitting[key] = await stack.enter_async_context(opening)
        # All as often: a run's end, when not all slots have work, must not weigh more for one.
        rounds = math.ceil(ROUNDS * max(one.slots for one in tries) / len(clips))
        alone, busy = [Run() for _ in tries], [Run() for _ in tries]
        for turn in range(TURNS):
            numbers = range(len(tries))
            for n in numbers if turn % 2 == 0 else reversed(numbers):
                one = tries[n]
                seat = sitting[one.replicas, one.threads, one.batch]
                await seat.hear(clips, 1, told=True, into=alone[n])
                await seat.hear([*clips] * rounds, one.slots, told=True, into=busy[n])
    return [_summed(*found) for found in zip(tries, alone, busy, strict=True)]


def _with(setup: Setup, one: Try) -> Setup:
    options = {**setup.options, "WHISPER__BATCH": str(one.batch)}
    return replace(setup, replicas=one.replicas, threads=one.threads, options=options)


def _summed(one: Try, alone: Run, busy: Run) -> Try:
    return replace(
        one,
        speed=busy.audio / busy.wall,
        alone=percentile(alone.each, 0.5),
        busy=percentile(busy.each, 0.5),
        memory=busy.memory,
    )
