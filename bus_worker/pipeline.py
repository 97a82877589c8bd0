"""Puts stages in order, checks needs and gives, runs a draft through them, times each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Self, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from bus_worker.errors import BadPlugin, BadRequest, BusWorkerError, Failed
from bus_worker.messages import ModelInfo
from bus_worker.plugin import Draft, ServesModel, Stage
from bus_worker.requests import refusal

__all__ = ["Pipeline", "Step"]

_log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 512
"""Threads are made only when all others are busy; requests in hand bound them long before."""

_AT_START = frozenset({"audio", "format", "options"})
"""What a draft holds before the first stage."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in its place, with the operator's options and, while open, what its `open` yielded."""

    stage: Stage
    options: BaseModel
    opened: Any = None


@dataclass(slots=True)
class Pipeline:
    """The stages in order. Use `Pipeline.order` to build one and `open` to bring it to life."""

    steps: list[Step]
    _pool: ThreadPoolExecutor | None = field(default=None, repr=False)

    @classmethod
    def order(
        cls,
        names: Iterable[str],
        stages: Mapping[str, Stage],
        options_for: Callable[[Stage], BaseModel] = lambda stage: stage.options(),
    ) -> Self:
        """The named stages in that order.

        Raises:
            BadPlugin: an unknown name, a name twice, or a need that no earlier stage gives.
        """
        names = list(names)
        steps: list[Step] = []
        given: dict[str, Stage | None] = dict.fromkeys(_AT_START)
        for name in names:
            if name not in stages:
                raise BadPlugin(
                    f"PIPELINE names a stage {name!r} that does not exist; there are {', '.join(sorted(stages))}"
                )
            stage = stages[name]
            if any(step.stage is stage for step in steps):
                raise BadPlugin(f"PIPELINE names the stage {name!r} twice")
            for need in stage.needs:
                if need not in given:
                    raise BadPlugin(_unmet(stage, need, names, stages))
            given.update(dict.fromkeys(stage.gives, stage))
            steps.append(Step(stage, options_for(stage)))
        if not steps:
            raise BadPlugin("PIPELINE is empty")
        return cls(steps)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Bring every stage with a life to life, side by side; take all down at the end."""
        async with AsyncExitStack() as stack:
            pool = ThreadPoolExecutor(MAX_THREADS, "stage")
            # Not joined: a thread that never returns must not keep the process (see STUCK_AFTER).
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            lives = [_Life(step) for step in self.steps if step.stage.open is not None]
            stack.push_async_callback(_close_all, lives)
            opened = await _open_all(lives)
            yield type(self)(
                [Step(s.stage, s.options, opened.get(s.stage.name)) for s in self.steps],
                pool,
            )

    @property
    def serves(self) -> ServesModel | None:
        """What the stage that holds the model says about it (None before `open`, or without one)."""
        return next((s.opened for s in self.steps if isinstance(s.opened, ServesModel)), None)

    @property
    def model(self) -> ModelInfo | None:
        """The model that an opened pipeline serves."""
        return self.serves.model if self.serves else None

    @property
    def cut(self) -> int | None:
        """Where hearing begins: the first step that gives segments, its samples being final.

        None where there is no such point, or a step behind it looks at more than samples.
        """
        gives = [step.stage.gives for step in self.steps]
        cut = next((n for n, given in enumerate(gives) if "segments" in given), 0)
        if not any("samples" in given for given in gives[:cut]):
            return None
        rest = {need for step in self.steps[cut:] for need in step.stage.needs}
        return None if rest & {"audio", "format"} else cut

    @property
    def decoded(self) -> int:
        """The first step that may be given samples instead of audio: the one behind the decoder's."""
        gives = [step.stage.gives for step in self.steps]
        return next((n + 1 for n, given in enumerate(gives) if "samples" in given), 0)

    def options_for(self, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseModel]:
        """Each stage's options with a request's own over the operator's.

        Raises:
            BadRequest: an unknown stage or option, one that is the operator's, or a value not allowed.
        """
        options = {step.stage.name: step.options for step in self.steps}
        for name, values in overrides.items():
            step = next((s for s in self.steps if s.stage.name == name), None)
            if step is None:
                raise BadRequest(
                    f"'stages' names {name[:60]!r}, which is not in this worker's pipeline ({', '.join(options)})"
                )
            options[name] = _merged(step, values)
        return options

    async def run(
        self,
        draft: Draft,
        options: Mapping[str, BaseModel] | None = None,
        part: slice = slice(None),
    ) -> dict[str, float]:
        """Take a draft through the stages (or a part of them), until one ends the walk.

        Returns:
            Seconds spent in each stage that ran, by name.

        Raises:
            BusWorkerError: from a stage as it is; anything else it raises becomes `Failed`, naming it.
        """
        options = options or self.options_for({})
        seconds: dict[str, float] = {}
        for step in self.steps[part]:
            draft.check()
            name, at, start = step.stage.name, time.time(), time.perf_counter()
            try:
                await self._run_step(step, draft, options[name])
            finally:
                seconds[name] = time.perf_counter() - start
                draft.timeline.append((f"stage {name}", at, at + seconds[name]))
            if draft.finished:
                break
        return seconds

    async def in_thread(
        self, draft: Draft, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run blocking work for a draft in a thread of the pipeline's pool."""
        if self._pool is None:
            raise RuntimeError("Pipeline.open was not entered")
        return await draft.run_in(self._pool, work, *args, **kwargs)

    async def _run_step(self, step: Step, draft: Draft, options: BaseModel) -> None:
        stage = step.stage
        arguments = (draft, options) if stage.open is None else (draft, options, step.opened)
        try:
            if stage.blocking:
                await self.in_thread(draft, stage.run, *arguments)
            else:
                await stage.run(*arguments)
        except BusWorkerError as exc:
            exc.details.setdefault("stage", stage.name)
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we were cancelled: the stage awaited something that was.
            _log.exception("stage_failed", stage=stage.name, source=stage.source)
            raise Failed(f"stage {stage.name!r} failed", stage=stage.name) from exc
        except (Exception, SystemExit) as exc:
            _log.exception("stage_failed", stage=stage.name, source=stage.source)
            raise Failed(f"stage {stage.name!r} failed", stage=stage.name) from exc


def _merged(step: Step, values: Mapping[str, Any]) -> BaseModel:
    """The operator's options of one stage with a request's over them."""
    name, allowed = step.stage.name, step.stage.per_request
    for option in values:
        if option not in allowed:
            known = option in step.stage.options.model_fields
            why = "is the operator's" if known else "does not exist"
            may = f"a request may set {', '.join(allowed)}" if allowed else "a request may set none"
            raise BadRequest(f"option 'stages.{name}.{option[:60]}' {why}; {may}")
    try:
        merged = {**step.options.model_dump(exclude_unset=True), **values}
        return step.stage.options.model_validate(merged)
    except ValidationError as exc:
        raise BadRequest(*refusal(exc, f"stages.{name}.")) from exc


def _unmet(stage: Stage, need: str, names: list[str], stages: Mapping[str, Stage]) -> str:
    givers = [s for s in stages.values() if need in s.gives and s is not stage]
    giver = next((s for s in givers if s.name in names), givers[0] if givers else None)
    sentence = f"stage {stage.name!r} ({stage.source}) needs {need!r}, which no stage before it in PIPELINE gives"
    if giver is None:
        return f"{sentence}; no stage found gives it"
    where = "stands after it" if giver.name in names else "is not in PIPELINE"
    return f"{sentence}; {giver.name!r} ({giver.source}) gives it but {where}"


class _Life:
    """A stage's `open`, entered and left by one task of its own.

    Cancel scopes (`asyncio.timeout`, `TaskGroup`) inside an `open` break when one task enters and
    another leaves; and opening side by side needs a task each.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._live(), name=f"stage-{step.stage.name}")

    async def _live(self) -> None:
        stage = self.step.stage
        assert stage.open is not None  # noqa: S101 - for the type checker; the caller filters
        try:
            async with stage.open(self.step.options) as opened:
                self.opened.set_result(opened)
                await self._end.wait()
        except BusWorkerError as exc:
            self._fail(exc)
        except Exception as exc:  # noqa: BLE001 - somebody's code: it becomes one sentence
            _log.exception("stage_open_failed", stage=stage.name, source=stage.source)
            self._fail(
                BadPlugin(
                    f"stage {stage.name!r} ({stage.source}) cannot open: {type(exc).__name__}: {exc}"
                )
            )

    def _fail(self, exc: BusWorkerError) -> None:
        if self.opened.done():
            _log.error("stage_close_failed", stage=self.step.stage.name, error=str(exc))
        else:
            self.opened.set_exception(exc)

    async def close(self) -> None:
        self._end.set()
        if not self.opened.done():
            self._task.cancel()
        await asyncio.wait({self._task})
        if self.opened.done() and not self.opened.cancelled():
            self.opened.exception()  # seen


async def _open_all(lives: list[_Life]) -> dict[str, Any]:
    if lives:
        await asyncio.wait({life.opened for life in lives}, return_when=asyncio.FIRST_EXCEPTION)
    for life in lives:
        if life.opened.done():
            life.opened.result()
    return {life.step.stage.name: life.opened.result() for life in lives}


async def _close_all(lives: list[_Life]) -> None:
    for life in reversed(lives):
        await life.close()
