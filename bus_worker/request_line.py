"""The one log line of a request: what it was, how long it took, what became of it; never the words."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from bus_worker.arrivals import Arrival
from bus_worker.messages import Transcript
from bus_worker.plugin import Draft

__all__ = ["outcome_of", "say_line"]

_log = structlog.get_logger(__name__)

LINE_FIELDS = frozenset(
    {"event", "level", "logger", "timestamp", "request_id", "exc_info", "stack_info"}
    | {"self", "args", "positional_args", "message", "exception"}
)
"""Names that a plugin's notes cannot take on a request's line."""


def say_line(
    arrival: Arrival, outcome: str, more: Callable[[], Mapping[str, Any]], *, ours: bool = False
) -> None:
    """Write the line; a plugin's own fields can neither replace ours nor prevent it.

    Args:
        arrival: the request.
        outcome: `ok`, or the code of its error.
        more: what else to say; what it raises is said instead.
        ours: it failed by our fault.
    """
    line = {
        "outcome": outcome,
        "seconds": round(time.monotonic() - arrival.received, 4),
        "bytes": arrival.size,
    }
    if arrival.fetched is not None:
        line["fetch"] = round(arrival.fetched, 4)
    try:
        theirs = {str(name): value for name, value in more().items()}
    except (TypeError, ValueError, AttributeError) as exc:
        theirs = {"unreadable": f"{type(exc).__name__}: {exc}"}
    kept = {name: value for name, value in theirs.items() if name not in LINE_FIELDS}
    say = _log.error if ours else _log.info
    say("request", **{**kept, **line})


def outcome_of(transcript: Transcript, draft: Draft | None) -> dict[str, Any]:
    """What the one line of a served request says of it; never the words."""
    line: dict[str, Any] = {
        "audio": transcript.duration,
        "language": transcript.language,
        "queue": transcript.timings.queue,
        **{f"stage_{name}": seconds for name, seconds in transcript.timings.stages.items()},
    }
    if transcript.warnings:
        line["warnings"] = transcript.warnings
    if draft is not None:
        line |= draft.notes | {f"span_{name}": round(s, 4) for name, s in draft.spans.items()}
    return line
