"""What is compared: our whole road without the bus, and faster-whisper as its page shows it."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bus_worker.bench.clips import Clip
from bus_worker.messages import pack
from bus_worker.model_store import find_model
from bus_worker.requests import read_request
from bus_worker.settings import load_settings
from bus_worker.worker import open_transcriber

__all__ = [
    "OURS", "STOCK", "STOCK_DEFAULTS", "TIMEOUT", "Engine", "Heard", "Timed", "hear_all", "made_of", "opened",
    "ours", "stock",
]  # fmt: skip

OURS = "bus-worker"
STOCK = "faster-whisper, same replicas"
STOCK_DEFAULTS = "faster-whisper, its defaults"
TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What an engine made of a clip."""

    text: str
    language: str | None
    words: list[tuple[str, float, float]]
    """Each with its start and end, where they were asked for."""


@dataclass(slots=True)
class Timed:
    """Clips heard, the seconds each took, and the seconds all took, so many at a time."""

    heard: dict[str, Heard] = field(default_factory=dict)
    each: list[float] = field(default_factory=list)
    wall: float = 0.0


Engine = Callable[[Clip, str | None, bool], Awaitable[Heard]]
"""Takes a clip, its language if that is told, and whether words are to have times."""


async def hear_all(
    engine: Engine, clips: list[Clip], at_once: int, *, told: bool, words: bool, into: Timed
) -> None:
    """Have an engine hear the clips, so many at a time, in their order."""
    waiting = iter(clips)

    async def caller() -> None:
        for clip in waiting:
            began = time.perf_counter()
            into.heard[clip.name] = await engine(clip, clip.language if told else None, words)
            into.each.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    into.wall += time.perf_counter() - began


@asynccontextmanager
async def opened(
    model: str, replicas: int, threads: int, options: dict[str, str]
) -> AsyncIterator[dict[str, Engine]]:
    """The engines, warm.

    Args:
        replicas: of ours and of one of the two stock models; so it is with `threads`.
        options: further settings of ours, by variable.
    """
    path = str(find_model(model).path)
    async with AsyncExitStack() as stack:
        engines = {
            OURS: await stack.enter_async_context(ours(model, replicas, threads, options)),
            STOCK: await stack.enter_async_context(
                stock(path, num_workers=replicas, cpu_threads=threads)
            ),
            STOCK_DEFAULTS: await stack.enter_async_context(stock(path)),
        }
        yield engines


@asynccontextmanager
async def ours(
    model: str, replicas: int, threads: int, options: Mapping[str, str]
) -> AsyncIterator[Engine]:
    """Our whole road in this process; `options` are further settings, by variable."""
    variables = {
        "WHISPER_MODEL": model,
        "WHISPER_DEVICE": "cpu",
        "WHISPER_REPLICAS": str(replicas),
        "WHISPER_THREADS": str(threads),
        **options,
    }
    async with open_transcriber(load_settings(variables), variables=variables) as transcriber:

        async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
            received = time.monotonic()
            asked = {"language": language, "word_timestamps": words}
            request = read_request(pack({"audio": clip.audio, "options": asked}))
            draft = transcriber.draft(request, deadline=received + TIMEOUT)
            found = await transcriber.run(draft, request, request_id=clip.name, received=received)
            timed = [word for segment in found.segments for word in segment.words or ()]
            return Heard(
                found.text, found.language, [(word.word, word.start, word.end) for word in timed]
            )

        yield hear


def made_of(segments: Iterable[Any], info: Any) -> Heard:
    """What faster-whisper heard; its work is done where the segments are taken."""
    parts = list(segments)
    timed = [word for segment in parts for word in segment.words or ()]
    return Heard(
        "".join(segment.text for segment in parts).strip(),
        info.language,
        [(word.word, word.start, word.end) for word in timed],
    )


@asynccontextmanager
async def stock(path: str, **how: Any) -> AsyncIterator[Engine]:
    """`WhisperModel.transcribe`, called from as many threads as there are callers."""
    from faster_whisper import WhisperModel  # noqa: PLC0415 - half a second, for this alone

    loop = asyncio.get_running_loop()
    how = {"device": "cpu", "compute_type": "int8", **how}
    model = await asyncio.to_thread(WhisperModel, path, **how)

    def work(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
        segments, info = model.transcribe(
            io.BytesIO(clip.audio), language=language, word_timestamps=words
        )
        return made_of(segments, info)

    with ThreadPoolExecutor(64, "stock") as pool:

        async def hear(clip: Clip, language: str | None, words: bool) -> Heard:  # noqa: FBT001 - an Engine
            return await loop.run_in_executor(pool, work, clip, language, words)

        yield hear
