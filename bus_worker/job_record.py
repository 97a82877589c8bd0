"""What is known of a job, as plain data: what everybody may see, and what the workers note beside it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from bus_worker.errors import BusWorkerError, Failed
from bus_worker.messages import Segment, error_to_map, map_to_error, segment_to_map

__all__ = ["FINAL", "JobEvent", "JobRecord", "JobState", "JobStatus", "Known", "Trouble"]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: frozenset[JobState] = frozenset(get_args(JobState))
FINAL: frozenset[JobState] = frozenset({"done", "failed", "cancelled"})
"""States that a job never leaves."""

UNREADABLE = "what is kept of the job cannot be read; are all of one version?"


def _types(hint: Any) -> tuple[type, ...]:
    """What a field that says so may hold; a whole number stands for a time too."""
    if get_origin(hint) is UnionType:
        return tuple(one for arg in get_args(hint) for one in _types(arg))
    if get_origin(hint) is Literal:
        return (str,)
    return (int, float) if hint is float else (get_origin(hint) or hint,)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Where a job stands. Times are unix seconds, lengths seconds of audio."""

    job_id: str
    status: JobState
    model: str
    priority: str = "low"
    request_id: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    """None until the whole recording has been read."""
    progress: float = 0.0
    """The part of the audio that is done, 0 to 1."""
    windows: int | None = None
    """Pieces that a long recording was cut into; None until it is known."""
    windows_done: int = 0
    attempts: int = 0
    """Times that a worker began with it."""
    failures: int = 0
    """Attempts that the work itself ended."""
    worker_id: str | None = None
    error: dict[str, Any] | None = None
    """Why it failed, as in a reply."""

    @property
    def final(self) -> bool:
        """Whether it will change no more."""
        return self.status in FINAL

    def failure(self) -> BusWorkerError:
        """The error of a failed job."""
        return map_to_error(self.error or error_to_map(Failed())["error"])

    @classmethod
    def from_map(cls, data: Mapping[str, Any]) -> Self:
        """As it was written; keys that this version does not know are ignored.

        Raises:
            Failed: it is not what we write.
        """
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        for name, value in known.items():
            if not isinstance(value, TYPES[name]):
                raise Failed(UNREADABLE)
        if known.get("status") not in STATES:
            raise Failed(UNREADABLE)
        try:
            return cls(**known)
        except TypeError as exc:
            raise Failed(UNREADABLE) from exc

    def to_map(self) -> dict[str, Any]:
        """As plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord(JobStatus):
    """A job's status, and what only we need to know."""

    sequence: int = 0
    """Where its message lies in the work queue; another message with its id is a double."""
    holder: str = ""
    """Who has it in hand: a word of each attempt's own."""
    deaths: int = 0
    """Attempts that nobody ended."""
    fingerprint: str = ""
    """What was asked, as a hash: an idempotency key stands for this."""
    claim: dict[str, Any] | None = None
    """The ticket of its audio, to be erased at the end."""
    traceparent: str | None = None
    """The trace that it is a part of."""
    language: str | None = None
    """What is spoken in a long recording, once its first speech was heard."""
    reply_to: str | None = None
    webhook: str | None = None
    done: bytes = b""
    """One bit a window."""
    seconds_done: float = 0.0
    answer: str = ""
    """Under which word its transcript lies."""
    parts: int = 0
    """In how many messages."""
    told: bool = False
    """Whether all that follows from its end has been seen to."""
    erased: bool = False
    """Nobody is to hear of it any more; whoever still has its message is not to begin again."""

    def shown(self) -> JobStatus:
        """What everybody may see."""
        return JobStatus(**{f.name: getattr(self, f.name) for f in fields(JobStatus)})

    def is_done(self, window: int) -> bool:
        """Whether a window's result was counted."""
        at, bit = divmod(window, 8)
        return at < len(self.done) and bool(self.done[at] >> bit & 1)


TYPES = {name: _types(hint) for name, hint in get_type_hints(JobRecord).items()}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What became of a job: a new status, or a piece of its text."""

    id: int
    """Rises with each event; an asker who names it hears those behind it."""
    job_id: str
    status: JobState
    progress: float
    at: float = field(default_factory=time.time)
    window: int | None = None
    """Which piece of a long recording the segments are of: pieces may be ready in any order."""
    segments: list[Segment] = field(default_factory=list)
    error: dict[str, Any] | None = None

    @property
    def final(self) -> bool:
        """Whether nothing comes behind it."""
        return self.status in FINAL

    def to_map(self) -> dict[str, Any]:
        """As it is kept: all but its id, which it gets by being kept."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "id"}
        return {**data, "segments": [segment_to_map(segment) for segment in self.segments]}

    @classmethod
    def from_map(cls, number: int, data: Mapping[str, Any]) -> Self:
        """As it was kept.

        Raises:
            Failed: it is not what we write.
        """
        try:
            known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
            known["segments"] = [Segment.from_map(s) for s in known.get("segments", ())]
            return cls(**{**known, "id": number})
        except (TypeError, AttributeError) as exc:
            raise Failed("an event cannot be read; are all of one version?") from exc


@dataclass(frozen=True, slots=True)
class Known:
    """A job's record as it was read, and where it lay then."""

    record: JobRecord
    sequence: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """How often a window was begun and never ended, and how often the work itself failed."""

    starts: int = 0
    failures: int = 0
