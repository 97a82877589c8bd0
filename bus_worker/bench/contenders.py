"""Who is compared: bus-worker by each of its roads, and faster-whisper as its users call it."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bus_worker.bench.clips import Clip
from bus_worker.bench.door import GATEWAY, Caller, raw
from bus_worker.bench.engines import (
    STOCK,
    STOCK_DEFAULTS,
    TIMEOUT,
    Engine,
    Heard,
    made_of,
    ours,
    stock,
)
from bus_worker.bench.processes import WORKER, started
from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server
from bus_worker.errors import error_for_code
from bus_worker.settings import environment
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

__all__ = ["AGAINST", "VIA", "Setup", "opened"]

BATCHED = "faster-whisper, batched pipeline"
VIA = {
    "engine": "bus-worker, engine alone",
    "bus": "bus-worker, over the bus",
    "http": "bus-worker, over HTTP",
}
AGAINST = {"same": STOCK, "defaults": STOCK_DEFAULTS, "batched": BATCHED}
LARGEST = 1 << 30
"""Bytes of a file: here nothing is refused for its size."""
KEPT = 2.0
"""Seconds that a connection is kept while another contender has its turn; the gateway's own limit is 5."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How they are opened; all alike, but that a model with its own defaults has those."""

    model: str
    """Its folder."""
    name: str
    device: str = "cpu"
    compute: str = "int8"
    replicas: int = 1
    threads: int = 1
    longest: float = 30.0
    """Seconds of the longest clip."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of ours, by variable."""

    @property
    def variables(self) -> dict[str, str]:
        """A worker's settings."""
        return {
            "WHISPER_MODEL": self.model,
            "MODEL_NAME": self.name,
            "WHISPER_DEVICE": self.device,
            "WHISPER_COMPUTE_TYPE": self.compute,
            "WHISPER_REPLICAS": str(self.replicas),
            "WHISPER_THREADS": str(self.threads),
            "MAX_AUDIO_DURATION": str(max(30.0, self.longest)),
            "MAX_FILE_SIZE": str(LARGEST),
            "REQUEST_TIMEOUT": str(TIMEOUT),
            "CACHE_ENABLED": "false",
            **self.options,
        }


def opened(who: str, setup: Setup) -> AbstractAsyncContextManager[Engine]:
    """One of `VIA` or `AGAINST`, by its name there, ready to hear."""
    lent = {"device": setup.device, "compute_type": setup.compute}
    if who == VIA["engine"]:
        return ours(setup.model, setup.replicas, setup.threads, setup.variables)
    if who == VIA["bus"]:
        return _over_the_bus(setup)
    if who == VIA["http"]:
        return _over_http(setup)
    if who == STOCK:
        alike = {"num_workers": setup.replicas, "cpu_threads": setup.threads}
        return stock(setup.model, **lent, **alike)
    return stock(setup.model, **lent) if who == STOCK_DEFAULTS else _batched(setup.model, **lent)


@asynccontextmanager
async def _batched(path: str, **how: Any) -> AsyncIterator[Engine]:
    """`BatchedInferencePipeline` as its page shows it; one call at a time, for it keeps state between steps."""
    from faster_whisper import (  # noqa: PLC0415 - half a second, for this alone
        BatchedInferencePipeline,
        WhisperModel,
    )

    model = await asyncio.to_thread(WhisperModel, path, **how)
    pipeline = BatchedInferencePipeline(model)  # type: ignore[no-untyped-call]  # has no types
    alone = asyncio.Lock()

    def work(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
        segments, info = pipeline.transcribe(
            io.BytesIO(clip.audio), language=language, word_timestamps=words
        )
        return made_of(segments, info)

    async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
        async with alone:
            return await asyncio.to_thread(work, clip, language, words)

    yield hear


@asynccontextmanager
async def _over_the_bus(setup: Setup) -> AsyncIterator[Engine]:
    """A nats-server and a worker of our own, asked by the client."""
    async with _house(setup) as url, TranscribeClient(url, model=setup.name) as client:

        async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
            found = await client.transcribe(
                clip.audio, language=language, word_timestamps=words, timeout=TIMEOUT, cache=False
            )
            return _read(found.to_map())

        yield hear


@asynccontextmanager
async def _over_http(setup: Setup) -> AsyncIterator[Engine]:
    """The same with a gateway before it; a connection for each caller, kept alive."""
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(_house(setup))
        door = await stack.enter_async_context(
            started(
                *GATEWAY, NATS_URL=bus, DEFAULT_MODEL=setup.name, API_HOST="127.0.0.1", API_PORT="0",
                MAX_FILE_SIZE=str(LARGEST), REQUEST_TIMEOUT=str(TIMEOUT),
            )
        )  # fmt: skip
        idle: list[tuple[float, Caller]] = []

        async def free() -> Caller:
            while idle:
                since, kept = idle.pop()
                if time.monotonic() - since < KEPT:
                    return kept
            return await Caller.at(door.ready["url"], stack)

        async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
            asked = {"cache": "false", "word_timestamps": str(words).lower()}
            asked |= {"language": language} if language else {}
            caller = await free()
            said = await caller.ask(raw(clip.audio, f"?{urlencode(asked)}".encode()))
            idle.append((time.monotonic(), caller))
            return _read(said)

        yield hear


@asynccontextmanager
async def _house(setup: Setup) -> AsyncIterator[str]:
    """A bus with one worker; its address. None of this environment's stage options hold in it."""
    unset = {name: "" for name in environment() if "__" in name}
    async with nats_server(default_model=setup.name) as server:
        async with connect(Address((server.url,))) as bus:
            await make_streams(bus.client, Subjects())
        async with started(*WORKER, **{**unset, **setup.variables, "NATS_URL": server.url}):
            yield server.url


def _read(said: Mapping[str, Any]) -> Heard:
    """A reply as plain data.

    Raises:
        BusWorkerError: it tells of an error.
    """
    if error := said.get("error"):
        raise error_for_code(error["code"], error["message"], error["details"])
    timed = [word for segment in said["segments"] for word in segment.get("words") or ()]
    return Heard(
        said["text"],
        said["language"],
        [(word["word"], word["start"], word["end"]) for word in timed],
    )
