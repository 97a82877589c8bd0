"""How things stand: the gateway, the bus, the workers and their cache; never slower than a second."""

import asyncio
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bus_worker import __version__
from bus_worker.client import TranscribeClient
from bus_worker.errors import BusWorkerError, Unavailable
from gateway.stats import Figures, figures_of, summed

__all__ = [
    "Cleared", "Health", "Status", "WorkerHealth", "clear_cache", "health", "live", "metrics", "ready", "root", "stats",
]  # fmt: skip

ASK = 0.4
"""Seconds that workers have to answer."""
WITHIN = 0.8
"""Seconds in which all is said, whoever answers."""
CLEAR_WITHIN = 15.0
AWAY = "the bus is away"
STUCK_AFTER = 5.0
"""Seconds: every cancelled request has a thread that takes a moment to notice."""

State = Literal["healthy", "degraded", "unhealthy"]


class Status(BaseModel):
    """The answer of `/`, `/live` and `/ready`."""

    status: str
    version: str = __version__


class WorkerHealth(BaseModel):
    """One worker, as it describes itself."""

    id: str
    model: str
    slots: int
    in_flight: int
    ready: bool
    reasons: list[str]
    """Why it is not."""
    stuck_for: float
    """Seconds that a thread of its has outlived its request."""
    last_inference: float | None
    """Unix time of its last transcript that did not come from the cache."""


class Health(BaseModel):
    """The answer of `/health`."""

    status: State
    version: str = __version__
    bus: Literal["connected", "away"]
    cache: Literal["up", "down", "off", "unknown"]
    """`down`: requests go on without it."""
    models: list[str]
    workers: list[WorkerHealth]
    problems: list[str]
    """What is wrong, a sentence each."""


class Cleared(BaseModel):
    """The answer of `DELETE /cache`."""

    cleared: int
    workers: dict[str, int]


async def root(request: Request) -> Response:
    """The shortest health: that this is the gateway, and whether it can serve."""
    reason = await _why_not(_client(request))
    return JSONResponse(Status(status=reason or "ready").model_dump())


async def live(_: Request) -> Response:
    """That the process runs."""
    return JSONResponse(Status(status="alive").model_dump())


async def ready(request: Request) -> Response:
    """Whether a request sent now finds a worker.

    Raises:
        Unavailable: it does not.
    """
    reason = await _why_not(_client(request))
    if reason:
        raise Unavailable(reason)
    return JSONResponse(Status(status="ready").model_dump())


async def health(request: Request) -> Response:
    """Bus, cache and every worker; 503 where nothing can be served."""
    client, unheard = _client(request), None
    try:
        figures = await _figures(client)
    except BusWorkerError as exc:
        figures, unheard = {}, exc.message
    wanted = request.app.state.settings.chosen_model
    said = _judge(client.connected, figures, wanted, unheard)
    return JSONResponse(said.model_dump(), status_code=503 if said.status == "unhealthy" else 200)


async def stats(request: Request) -> Response:
    """What the workers count of themselves, added up and each."""
    return JSONResponse(summed(await _figures(_client(request))).model_dump())


async def metrics(request: Request) -> Response:
    """What this gateway counts, for Prometheus."""
    return Response(request.app.state.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def clear_cache(request: Request) -> Response:
    """Make the workers forget their answers."""
    client = _client(request)
    if not client.connected:
        raise Unavailable("the bus is away; try again in a while")
    async with asyncio.timeout(CLEAR_WITHIN):
        removed = await client.clear_cache()
    said = Cleared(cleared=sum(removed.values()), workers=removed)
    return JSONResponse(said.model_dump())


def _client(request: Request) -> TranscribeClient:
    client: TranscribeClient = request.app.state.client
    return client


async def _why_not(client: TranscribeClient) -> str | None:
    """Why nothing can be served; None where it can."""
    if not client.connected:
        return AWAY
    try:
        async with asyncio.timeout(WITHIN):
            served = await client.is_served(ASK)
    except TimeoutError:
        return AWAY
    except BusWorkerError as exc:
        return AWAY if exc.retry else exc.message
    return None if served else "no worker serves"


async def _figures(client: TranscribeClient) -> dict[str, dict[str, Any]]:
    """What the workers say in time; nothing where the bus is away.

    Raises:
        BusWorkerError: they cannot be asked, and trying again does not help.
    """
    if not client.connected:
        return {}
    try:
        async with asyncio.timeout(WITHIN):
            return await client.figures(ASK)
    except TimeoutError:
        return {}
    except BusWorkerError as exc:
        if not exc.retry:
            raise
        return {}


def _judge(
    connected: bool,  # noqa: FBT001 - one of the three things judged
    figures: dict[str, dict[str, Any]],
    wanted: str | None,
    unheard: str | None,
) -> Health:
    read = {name: one for name in sorted(figures) if (one := figures_of(figures[name]))}
    workers = [_worker(name, one) for name, one in read.items()]
    models = sorted({worker.model for worker in workers})
    cache = _cache(list(read.values()))
    problems = [f"worker {w.id} is stuck" for w in workers if w.stuck_for > STUCK_AFTER]
    problems += [
        f"worker {w.id} is not ready: {'; '.join(w.reasons)}" for w in workers if not w.ready
    ]
    if not connected:
        problems.append(AWAY)
    elif not workers:
        problems.append(unheard or "no worker answers")
    elif wanted and wanted not in models:
        problems.append(f"no worker serves the default model, {wanted}")
    if cache == "down":
        problems.append("the cache is away; requests go on without it")
    serving = any(worker.ready for worker in workers)
    state: State = "unhealthy" if not serving else "degraded" if problems else "healthy"
    return Health(
        status=state, bus="connected" if connected else "away", cache=cache, models=models,
        workers=workers, problems=problems,
    )  # fmt: skip


def _worker(name: str, found: Figures) -> WorkerHealth:
    said = {field: getattr(found, field) for field in WorkerHealth.model_fields if field != "id"}
    return WorkerHealth(id=name, **said)


def _cache(figures: list[Figures]) -> Literal["up", "down", "off", "unknown"]:
    if not figures:
        return "unknown"
    if any(found.cache.breaker != "closed" for found in figures):
        return "down"
    return "off" if all(found.cache.kind == "none" for found in figures) else "up"
