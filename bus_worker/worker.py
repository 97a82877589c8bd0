"""The process: builds the rooms in order, runs till told, takes them down in reverse."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from bus_worker import __version__
from bus_worker.bus import Bus
from bus_worker.cache import open_cache
from bus_worker.cache_control import CacheControl
from bus_worker.claim_check import ClaimCheck
from bus_worker.connection import address
from bus_worker.dead_letters import DeadLetters
from bus_worker.discovery import Discovery, ServiceInfo
from bus_worker.health import Health
from bus_worker.jobs import LONGEST, JobWorker, Limits, Means
from bus_worker.loader import find_stages
from bus_worker.lookout import Lookout
from bus_worker.messages import ModelInfo
from bus_worker.metrics import Metrics
from bus_worker.pipeline import Pipeline
from bus_worker.recall import Recall
from bus_worker.request_line import RequestLine
from bus_worker.results import Results
from bus_worker.service import Service
from bus_worker.settings import Settings, environment, stage_options
from bus_worker.signals import StopSignals
from bus_worker.subjects import Subjects, model_token
from bus_worker.systemd import Systemd
from bus_worker.tracing import Tracer, open_tracer
from bus_worker.transcriber import Transcriber
from bus_worker.webhook_rules import WebhookRules

__all__ = ["build_pipeline", "open_transcriber", "run_worker"]

_log = structlog.get_logger(__name__)

CHECK_EVERY = 1.0
GIVE_BACK = 3.0
"""Seconds before the end of a drain in which jobs go back to their queue."""


def build_pipeline(settings: Settings, variables: Mapping[str, str] | None = None) -> Pipeline:
    """The pipeline that the settings describe, not yet opened.

    Args:
        variables: where `STAGE__OPTION`s are looked up, if not in the environment.

    Raises:
        BadPlugin, BadSetting: see `find_stages`, `Pipeline.order`, `stage_options`.
    """
    return Pipeline.order(
        settings.pipeline,
        find_stages(settings.plugins_path),
        lambda stage: stage_options(stage.name, stage.options, settings, variables),
    )


@asynccontextmanager
async def open_transcriber(
    settings: Settings,
    worker_id: str = "local",
    *,
    variables: Mapping[str, str] | None = None,
    recall: Recall | None = None,
) -> AsyncIterator[Transcriber]:
    """The road without the bus: the pipeline (see `build_pipeline`), opened, behind a transcriber.

    Args:
        recall: what it has answered before; without one it remembers nothing.
    """
    async with build_pipeline(settings, variables).open() as pipeline:
        model = pipeline.model or ModelInfo(
            settings.model_name or Path(settings.whisper_model).name
        )
        yield Transcriber(
            pipeline=pipeline,
            model=model,
            worker_id=worker_id,
            max_bytes=settings.max_file_size,
            recall=recall or Recall(),
        )


@asynccontextmanager
async def _open_recall(settings: Settings) -> AsyncIterator[Recall]:
    """The cache that the settings ask for; one that is away fails nothing."""
    url = settings.redis_url.get_secret_value() if settings.redis_url else None
    async with open_cache(
        enabled=settings.cache_enabled, url=url, prefix=settings.subject_prefix
    ) as cache:
        yield Recall(cache, settings.cache_ttl)


async def run_worker(settings: Settings, *, on_ready: Callable[[], None] = lambda: None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; a second signal leaves at once.

    Returns:
        The process's exit status: 0 after a drain, 1 when the bus has gone for good, or lets us not listen.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        rooms = await _build(stack, settings)
        # Until here there is nothing in hand: a signal simply ends the process.
        told = StopSignals()
        stack.callback(told.restore)
        status = 1
        if await rooms.start():
            _log.info(
                "ready",
                worker_id=rooms.transcriber.worker_id,
                model=rooms.transcriber.model.name,
                slots=rooms.service.credits.slots,
                pipeline=list(settings.pipeline),
                metrics_port=rooms.port,
                seconds=round(time.monotonic() - began, 2),
            )
            on_ready()
            status = await _until_told(told, rooms.bus, rooms.service, settings.stuck_after)
        await rooms.stop_taking()
        await _drain(told, rooms.service, rooms.jobs, settings.drain_timeout)
    _log.info("stopped", answers=dict(rooms.service.counts))
    if rooms.service.stuck_for():
        # A thread that never returns would keep the interpreter at exit for ever.
        logging.shutdown()
        os._exit(status)
    return status


@dataclass(slots=True)
class _Rooms:
    """What takes work from the bus, and what it stands on."""

    bus: Bus
    transcriber: Transcriber
    service: Service
    discovery: Discovery
    control: CacheControl
    jobs: JobWorker
    health: Health
    port: int | None

    async def start(self) -> bool:
        """Take work from now on; False where the bus does not let us listen."""
        await self.service.start()
        await self.discovery.start()
        await self.control.start()
        await self.jobs.start()
        await self.bus.confirmed()  # who reads "ready" may ask at once
        if (why := self.bus.unheard()) is not None:
            _log.critical("not_allowed", why=why)
            return False
        self.health.watch(self.bus, self.service)
        return True

    async def stop_taking(self) -> None:
        """Take nothing more; what is in hand goes on."""
        self.health.drain()
        _log.info("draining", in_flight=self.service.credits.busy)
        await self.discovery.stop()
        await self.control.stop()
        await self.jobs.stop_taking()


async def _build(stack: AsyncExitStack, settings: Settings) -> _Rooms:
    """The rooms in order, the model and the bus opened; the stack takes them down in reverse."""
    bus = Bus()
    sight = _Sight(bus, Metrics(), Health(settings.stuck_after, Systemd(environment())))
    port = await _open_lookout(stack, settings, sight)
    transcriber = await _open_both(stack, settings, bus, sight.health)
    tracer = open_tracer("bus-worker", settings.otel_exporter_otlp_endpoint)
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    line = _line(settings, sight.metrics, transcriber, tracer)
    sight.service = service = _service(settings, bus, transcriber, line)
    sight.jobs = jobs = _jobs(settings, bus, transcriber, service, line)
    names = Subjects(settings.subject_prefix)
    return _Rooms(
        bus=bus,
        transcriber=transcriber,
        service=service,
        discovery=Discovery(
            bus, _info(settings, transcriber, service.credits.slots, port), sight.stats
        ),
        control=CacheControl(bus, names, settings.queue_group, transcriber),
        jobs=jobs,
        health=sight.health,
        port=port,
    )


@dataclass(slots=True)
class _Sight:
    """What is seen of this worker from outside."""

    bus: Bus
    metrics: Metrics
    health: Health
    service: Service | None = None
    jobs: JobWorker | None = None

    def stats(self) -> dict[str, Any]:
        """The endpoint's figures for `$SRV.STATS`."""
        assert self.service is not None  # noqa: S101 - it is asked for over the bus, which needs one
        return {**self.service.stats(), "data": self.figures()}

    def figures(self) -> dict[str, Any]:
        """All that is counted, as plain data; from any thread."""
        reasons = self.health.not_ready()
        seen = {"ready": not reasons, "reasons": reasons, "bus_connected": self.bus.connected}
        if self.service is not None:
            seen |= self.service.stats()["data"]
            seen["jobs_in_hand"] = self.jobs.lanes.jobs if self.jobs else 0
        return seen


async def _open_lookout(stack: AsyncExitStack, settings: Settings, sight: _Sight) -> int | None:
    """Begin to be seen, before the model is there; the port, where metrics are served."""
    sight.health.start()
    stack.push_async_callback(sight.health.stop)
    sight.metrics.reads(sight.figures)
    if settings.metrics_port is None:
        return None
    health = sight.health
    lookout = Lookout(sight.metrics.registry, not_live=health.not_live, not_ready=health.not_ready)
    port = await asyncio.to_thread(lookout.open, settings.metrics_host, settings.metrics_port)
    stack.push_async_callback(asyncio.to_thread, lookout.close)
    return port


async def _open_both(
    stack: AsyncExitStack, settings: Settings, bus: Bus, health: Health
) -> Transcriber:
    """The model and the bus, side by side."""
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    stack.push_async_callback(bus.close)
    opening = asyncio.create_task(bus.open(address(settings), limit=None), name="bus-open")
    try:
        recall = await stack.enter_async_context(_open_recall(settings))
        transcriber = await stack.enter_async_context(
            open_transcriber(settings, worker_id, recall=recall)
        )
        _log.info("model_loaded", **transcriber.described())
        health.model_loaded()
        model_token(transcriber.model.name)  # a name that fits no subject stops the start here
        await opening
    finally:
        if not opening.done():
            opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    return transcriber


def _line(
    settings: Settings, metrics: Metrics, transcriber: Transcriber, tracer: Tracer
) -> RequestLine:
    return RequestLine(
        metrics,
        transcriber.model.name,
        transcriber.worker_id,
        caches=transcriber.recall.cache.keeps,
        show_text=settings.log_text,
        tracer=tracer,
    )


def _service(settings: Settings, bus: Bus, transcriber: Transcriber, line: RequestLine) -> Service:
    serves = transcriber.pipeline.serves
    return Service(
        bus,
        transcriber,
        names=Subjects(settings.subject_prefix),
        queue=settings.queue_group,
        slots=settings.worker_slots or (serves.slots if serves else 1),
        request_timeout=settings.request_timeout,
        line=line,
    )


def _jobs(
    settings: Settings, bus: Bus, transcriber: Transcriber, service: Service, line: RequestLine
) -> JobWorker:
    names = Subjects(settings.subject_prefix)
    nc = bus.client
    means = Means(
        bus=bus,
        names=names,
        transcriber=transcriber,
        results=Results(nc, names, settings.job_results_ttl),
        checks=ClaimCheck(nc, names),
        dead=DeadLetters(nc, names),
        rules=WebhookRules.read(settings.webhook_secret, settings.webhook_allow),
        limits=Limits(
            max_duration=settings.job_max_audio_duration,
            max_bytes=settings.job_max_file_size,
            longest_clip=min(LONGEST, settings.max_audio_duration),
            formats=settings.allowed_audio_formats,
        ),
        line=line,
    )
    return JobWorker(
        means,
        service.credits,
        somebody_waits=lambda: service.waiting.occupied,
        most=settings.job_slots,
    )


def _info(
    settings: Settings, transcriber: Transcriber, slots: int, port: int | None
) -> ServiceInfo:
    model = transcriber.model
    metadata = {"model": model.name, "revision": model.revision or "", "slots": str(slots)}
    if port is not None:
        metadata["metrics_port"] = str(port)
    return ServiceInfo(
        name=settings.subject_prefix,
        id=transcriber.worker_id,
        version=__version__,
        description="Speech to text",
        subject=Subjects(settings.subject_prefix).transcribe(model.name),
        queue_group=settings.queue_group,
        metadata=metadata,
    )


async def _until_told(told: StopSignals, bus: Bus, service: Service, stuck_after: float) -> int:
    """Wait for a signal (0), the end of the bus or a stuck thread (1)."""
    while not told.stop.is_set():
        try:
            async with asyncio.timeout(CHECK_EVERY):
                await told.stop.wait()
        except TimeoutError:
            if bus.gone.is_set():
                _log.critical("bus_gone")
                return 1
            if service.stuck_for() > stuck_after:
                _log.critical("stuck", seconds=round(service.stuck_for(), 1))
                return 1
    return 0


async def _drain(told: StopSignals, service: Service, jobs: JobWorker, limit: float) -> None:
    """Finish what is in hand, or on a second signal answer it with `stopping`; jobs go back in time."""
    stopping = asyncio.create_task(service.stop(limit), name="drain")
    hurry = asyncio.create_task(told.now.wait(), name="hurry")
    try:
        both, first = {stopping, hurry}, asyncio.FIRST_COMPLETED
        await asyncio.wait(both, timeout=max(0.0, limit - GIVE_BACK), return_when=first)
        jobs.give_up()
        if not told.now.is_set():
            await asyncio.wait(both, return_when=first)
        if not stopping.done():
            await service.stop_now()
        await stopping
    finally:
        hurry.cancel()
        await asyncio.wait({hurry})
