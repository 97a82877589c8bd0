"""The one log line of a request, and its part in the metrics: what it was, how long it took, what became of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from bus_worker.arrivals import Arrival
from bus_worker.durations import Durations
from bus_worker.errors import BusWorkerError, Failed
from bus_worker.messages import Transcript
from bus_worker.metrics import Metrics, Work
from bus_worker.recall import Answer
from bus_worker.tracing import NoTracer, Timeline, Tracer

__all__ = ["RequestLine", "clean"]

_log = structlog.get_logger(__name__)

MAX_MESSAGE = 500
LINE_FIELDS = frozenset(
    {"event", "level", "logger", "timestamp", "request_id", "job_id", "exc_info", "stack_info"}
    | {"self", "args", "positional_args", "message", "exception"}
)
"""Names that a plugin's notes cannot take on a request's line."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Writes one line for each piece of work as it ends, and has it counted.

    Args:
        caches: whether this worker remembers its answers.
        show_text: the words go to the log, too (LOG_TEXT).
    """

    metrics: Metrics = field(default_factory=Metrics)
    model: str = ""
    worker_id: str = ""
    caches: bool = True
    show_text: bool = False
    tracer: Tracer = field(default_factory=NoTracer)
    durations: Durations = field(default_factory=Durations)
    """From arrival to answer, of transcripts."""

    def answered(self, arrival: Arrival, transcript: Transcript) -> None:
        """A request has its transcript."""
        draft = arrival.draft
        work = Work(
            lane="request",
            code="ok",
            seconds=time.monotonic() - arrival.received,
            waited=transcript.timings.queue,
            audio=transcript.duration,
            stages=transcript.timings.stages,
            spans=draft.spans if draft else {},
            notes=draft.notes if draft else {},
            at=arrival.asked_at or arrival.at,
            traceparent=arrival.traceparent,
            timeline=_timeline(arrival, transcript.timings.queue),
        )
        self.durations.add(work.seconds)
        self.write(work, _of(arrival), self.words(transcript))

    def refused(self, arrival: Arrival, error: BusWorkerError, why: str) -> None:
        """A request has its error."""
        work = Work(
            "request",
            error.code,
            time.monotonic() - arrival.received,
            at=arrival.asked_at or arrival.at,
            traceparent=arrival.traceparent,
            timeline=_timeline(arrival, 0.0),
        )
        known = {**_of(arrival), "why": why}
        self.write(work, known, _plain(error.details), ours=isinstance(error, Failed))

    def write(
        self,
        work: Work,
        known: Mapping[str, Any],
        more: Mapping[str, Any] | None = None,
        *,
        ours: bool = False,
    ) -> None:
        """Count a piece of work and write its line; a plugin's own fields can neither replace ours nor prevent it.

        Args:
            known: what else we know of it.
            more: what a plugin may have had a hand in.
            ours: it failed by our fault.
        """
        work = replace(work, spans=_plain(work.spans), notes=_plain(work.notes))
        self.metrics.observe(work)
        self._trace(work)
        line = {
            "lane": work.lane,
            "outcome": "ok" if work.code == "ok" else "error",
            "code": work.code,
            "model": self.model,
            "worker": self.worker_id,
            "seconds": round(work.seconds, 4),
            **known,
        }
        if work.traceparent is not None:
            line["trace_id"] = work.traceparent.split("-")[1]
        if work.code == "ok":
            line |= self._done(work)
        kept = {
            name: value
            for name, value in {**(more or {}), **work.notes}.items()
            if name not in LINE_FIELDS
        }
        say = _log.error if ours else _log.info
        say("request" if work.lane == "request" else "attempt", **{**kept, **line})

    def _trace(self, work: Work) -> None:
        at = work.at or time.time() - work.seconds
        span = self.tracer.start(
            "transcribe" if work.lane == "request" else work.lane,
            work.traceparent, at=at, kind="consumer", model=self.model, worker=self.worker_id,
            audio=work.audio,
        )  # fmt: skip
        span.add(work.timeline)
        span.end(work.code)

    def words(self, said: Answer | Transcript) -> dict[str, Any]:
        """What may be said of the words: their language, and themselves only where that was asked for."""
        words: dict[str, Any] = {"language": said.language}
        if said.warnings:
            words["warnings"] = said.warnings
        if self.show_text:
            words["text"] = said.text
        return words

    def _done(self, work: Work) -> dict[str, Any]:
        """What was done for it, and what that took."""
        line: dict[str, Any] = {"audio": work.audio}
        if work.lane != "window":  # its cache is not asked
            line["cache"] = self._cache(work)
        if work.waited is not None:
            line["queue"] = round(work.waited, 4)
        line |= {f"stage_{name}": round(seconds, 4) for name, seconds in work.stages.items()}
        return line | {
            f"span_{name}": round(seconds, 4)
            for name, seconds in work.spans.items()
            if isinstance(seconds, float)
        }

    def _cache(self, work: Work) -> str:
        if not self.caches:
            return "off"
        if work.notes.get("cache_hit") is True:
            return "hit"
        return "shared" if work.notes.get("shared") is True else "miss"


def _timeline(arrival: Arrival, queue: float) -> Timeline:
    """From the caller's question on: the wait for a slot, for audio that comes by ticket, and the stages."""
    waited = ("wait", arrival.asked_at or arrival.at, arrival.at + queue)
    return [waited, *(arrival.draft.timeline if arrival.draft else ())]


def _of(arrival: Arrival) -> dict[str, Any]:
    known: dict[str, Any] = {"bytes": arrival.size}
    if arrival.fetched is not None:
        known["fetch"] = round(arrival.fetched, 4)
    return known


def _plain(left: object) -> dict[str, Any]:
    """What a plugin left, where it is what it should be."""
    return {str(name): value for name, value in left.items()} if isinstance(left, Mapping) else {}


def clean(message: str) -> str:
    """A message as the wire and a terminal can bear it: a plugin may write anything."""
    text = str(message)[:MAX_MESSAGE].encode(errors="replace").decode()
    return "".join(char if char.isprintable() else " " for char in text)
