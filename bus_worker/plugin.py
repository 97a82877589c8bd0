"""All that a plugin may touch, on one page: `Draft`, `Stage`, `@stage`.

A stage is a function that changes the draft. The host times it, logs it, validates its options
and attributes its errors; see plugins/README.md.
"""

import asyncio
import contextlib
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from bus_worker.errors import Cancelled, DeadlineExceeded
from bus_worker.messages import ModelInfo, Segment
from bus_worker.requests import Options
from bus_worker.tracing import Timeline

__all__ = [
    "SAMPLE_RATE",
    "Draft",
    "NoOptions",
    "Options",
    "Samples",
    "ServesModel",
    "Stage",
    "stage",
]

SAMPLE_RATE = 16_000
"""Samples a second of `Draft.samples`; what Whisper hears."""

Samples = npt.NDArray[np.float32]
"""Mono audio, shape (n,), float32, nominally within ±1, 16 kHz."""

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class ServesModel(Protocol):
    """What a stage's `open` may yield to say which model the worker serves, and how many at once.

    It may also have `runs_on`, a map with `device` and `compute_type`, for the metrics.
    """

    model: ModelInfo
    slots: int


@dataclass(slots=True)
class Draft:
    """A transcript in the making: the only thing that changes on the road.

    `extras` is for what one plugin leaves for another; a name in it can stand in `needs` and `gives`.
    """

    audio: bytes = b""
    format: str | None = None
    options: Options = field(default_factory=Options)
    stream: bool = False
    deadline: float | None = None
    """`time.monotonic()` value after which nobody waits any more."""

    samples: Samples | None = None
    duration: float = 0.0
    language: str | None = None
    language_probability: float | None = None
    segments: list[Segment] = field(default_factory=list)
    text: str = ""
    model: ModelInfo | None = None
    warnings: list[str] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)

    notes: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, float] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=list)
    """Each stage and each span, for traces."""
    finished: bool = False

    on_segment: Callable[[Segment], None] | None = None
    _gave_up: threading.Event = field(default_factory=threading.Event)
    _threads: set["asyncio.Future[Any]"] = field(default_factory=set)

    def finish(self) -> None:
        """End the walk here: what the draft holds is the answer; later stages do not run."""
        self.finished = True

    def warn(self, code: str) -> None:
        """Add a warning (a short `snake_case` code) to the transcript."""
        if code not in self.warnings:
            self.warnings.append(code)

    def note(self, name: str, value: float | str | bool) -> None:  # noqa: FBT001 - a value, not a flag
        """Leave a figure for the host's log and metrics."""
        self.notes[name] = value

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time a part of a stage; seconds add up under `name`."""
        at, start = time.time(), time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.spans[name] = self.spans.get(name, 0.0) + took
            self.timeline.append((name, at, at + took))

    def emit(self, segment: Segment) -> None:
        """Hand a finished segment to a caller who streams; safe from any thread."""
        if self.on_segment is not None:
            self.on_segment(segment)

    def remaining(self) -> float:
        """Seconds until the deadline (infinite without one)."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Stop work nobody waits for: call it between segments. Safe from any thread.

        Raises:
            Cancelled: the caller cancelled or hung up.
            DeadlineExceeded: the deadline has passed.
        """
        if self.remaining() <= 0:
            raise DeadlineExceeded
        if self._gave_up.is_set():
            raise Cancelled

    def give_up(self) -> None:
        """Tell every thread that works on this draft that nobody waits any more."""
        self._gave_up.set()

    async def run_in(
        self, executor: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run blocking work in a thread; when the caller leaves, the draft still knows the thread.

        A thread cannot be stopped: the request's slot comes back only when the thread does
        (`settled`), so that a worker never runs more than it has room for.
        """
        self.check()
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()  # log lines from the thread carry the request id too
        future = loop.run_in_executor(executor, lambda: context.run(work, *args, **kwargs))
        self._threads.add(future)
        future.add_done_callback(self._forget)
        return await asyncio.shield(future)

    def _forget(self, future: "asyncio.Future[Any]") -> None:
        self._threads.discard(future)
        if not future.cancelled():
            future.exception()  # seen: an abandoned thread's failure must not warn at exit

    async def settled(self) -> None:
        """Wait until no thread works on this draft."""
        while self._threads:
            await asyncio.wait(set(self._threads))


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline: a function with what it needs, what it gives and its options."""

    name: str
    summary: str
    run: Callable[..., Any]
    options: type[BaseModel]
    needs: tuple[str, ...]
    gives: tuple[str, ...]
    version: str
    per_request: tuple[str, ...]
    open: Callable[[Any], AbstractAsyncContextManager[Any]] | None
    source: str
    module: str

    @property
    def blocking(self) -> bool:
        """Whether the host must run it in a thread (a plain `def`)."""
        return not inspect.iscoroutinefunction(self.run)


class NoOptions(BaseModel):
    """A stage without knobs."""

    model_config = ConfigDict(extra="forbid")


def stage(
    options: type[BaseModel] = NoOptions,
    *,
    needs: tuple[str, ...] = (),
    gives: tuple[str, ...] = (),
    version: str = "1",
    per_request: tuple[str, ...] = (),
    open: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,  # noqa: A002 - the contract's word
) -> Callable[[Callable[..., Any]], Stage]:
    """Make a function a stage; the function's name is the stage's.

    Args:
        options: a pydantic model of the stage's knobs, set by `STAGE__OPTION`.
        needs: draft fields (or `extras`) that an earlier stage must give.
        gives: draft fields (or `extras`) that this stage leaves.
        version: part of the cache key; raise it when the same input gives another answer.
        per_request: options that a request may set for itself.
        open: an async context manager taking the options, for a stage with a life (a model);
            what it yields is the function's third argument.

    Raises:
        TypeError: `per_request` names an option that does not exist, or the function's
            arguments do not fit.
    """
    unknown = [name for name in per_request if name not in options.model_fields]
    if unknown:
        raise TypeError(f"per_request names no option of {options.__name__}: {', '.join(unknown)}")

    def wrap(function: Callable[..., Any]) -> Stage:
        wanted = 3 if open is not None else 2
        if len(inspect.signature(function).parameters) != wanted:
            arguments = "(draft, options, opened)" if open is not None else "(draft, options)"
            raise TypeError(f"stage {function.__name__!r} must take {arguments}")
        return Stage(
            name=function.__name__,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            run=function,
            options=options,
            needs=tuple(needs),
            gives=tuple(gives),
            version=version,
            per_request=tuple(per_request),
            open=open,
            source=inspect.getsourcefile(function) or "?",
            module=function.__module__,
        )

    return wrap
