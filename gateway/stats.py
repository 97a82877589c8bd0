"""What all workers count of themselves, added up: totals, hit rate, latencies, each worker beside them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_worker.durations import Durations

__all__ = ["Figures", "Latency", "Stats", "Totals", "figures_of", "summed"]

Count = Annotated[int, Field(ge=0)]
Cell = Annotated[int, Field(ge=0, le=200)]


class CacheFigures(BaseModel):
    """A worker's cache, as the worker counts it."""

    model_config = ConfigDict(extra="ignore")

    hits: Count = 0
    misses: Count = 0
    shared: Count = 0
    kind: str = ""
    breaker: str = "closed"


class Figures(BaseModel):
    """What is read of a worker's figures; those of another version may have more, or fewer."""

    model_config = ConfigDict(extra="ignore")

    ready: bool = True
    reasons: list[str] = []
    model: str = ""
    slots: Count = 0
    in_flight: Count = 0
    waiting: Count = 0
    jobs_in_hand: Count = 0
    stuck_for: float = 0.0
    last_inference: float | None = None
    answers: dict[str, Count] = {}
    cache: CacheFigures = CacheFigures()
    durations: dict[Cell, Count] = {}


class Latency(BaseModel):
    """Seconds from a request's arrival at a worker to its transcript, since the worker started; 5 % more or less."""

    p50: float | None
    p95: float | None


class Totals(BaseModel):
    """All workers together."""

    workers: int
    ready: int
    """Workers that can serve."""
    slots: int
    in_flight: int
    waiting: int
    """Requests that wait, without a slot, for equal ones."""
    jobs_in_hand: int
    requests: int
    errors: int
    answers: dict[str, int]
    """Requests by how they ended: `ok`, or the code of their error."""
    cache_hits: int
    cache_misses: int
    cache_hit_rate: float | None
    """Of requests that the cache was asked for; those that shared another's work count as hits."""
    latency: Latency


class Stats(BaseModel):
    """The answer of `/stats`."""

    totals: Totals
    workers: dict[str, dict[str, Any]]


def figures_of(found: Mapping[str, Any]) -> Figures | None:
    """A worker's figures; None for what is none: anybody on the bus may answer."""
    try:
        return Figures.model_validate(found)
    except ValidationError:
        return None


def summed(found: Mapping[str, dict[str, Any]]) -> Stats:
    """All of them added up, and each as it came, its durations read."""
    read = {name: figures for name in found if (figures := figures_of(found[name])) is not None}
    beside = {
        name: {
            **{key: value for key, value in found[name].items() if key != "durations"},
            "latency": _latency([figures]).model_dump(),
        }
        for name, figures in sorted(read.items())
    }
    return Stats(totals=_totals(list(read.values())), workers=beside)


def _totals(all_of_them: list[Figures]) -> Totals:
    answers: dict[str, int] = {}
    for one in all_of_them:
        for code, count in one.answers.items():
            answers[code] = answers.get(code, 0) + count
    requests = sum(answers.values())
    hits = sum(one.cache.hits for one in all_of_them)
    shared = sum(one.cache.shared for one in all_of_them)
    misses = sum(one.cache.misses for one in all_of_them)
    asked = hits + shared + misses
    return Totals(
        workers=len(all_of_them),
        ready=sum(one.ready for one in all_of_them),
        slots=sum(one.slots for one in all_of_them),
        in_flight=sum(one.in_flight for one in all_of_them),
        waiting=sum(one.waiting for one in all_of_them),
        jobs_in_hand=sum(one.jobs_in_hand for one in all_of_them),
        requests=requests,
        errors=requests - answers.get("ok", 0),
        answers=answers,
        cache_hits=hits + shared,
        cache_misses=misses,
        cache_hit_rate=round((hits + shared) / asked, 4) if asked else None,
        latency=_latency(all_of_them),
    )


def _latency(of: list[Figures]) -> Latency:
    joined = Durations.joined({str(c): n for c, n in one.durations.items()} for one in of)
    return Latency(p50=joined.quantile(0.5), p95=joined.quantile(0.95))
