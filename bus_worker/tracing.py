"""Traces: W3C's `traceparent` passed on, and spans for OpenTelemetry where somebody wants them.

Nothing here needs more than the standard library; what sends spans is loaded where it is asked for.
"""

import importlib
import logging
import re
from typing import Protocol, TypeAlias

__all__ = ["NoSpan", "NoTracer", "Span", "Timeline", "Tracer", "open_tracer", "read_traceparent"]

_log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

Timeline: TypeAlias = list[tuple[str, float, float]]
"""What was done: its name, its start and its end in unix seconds."""


def read_traceparent(text: str | None) -> str | None:
    """A `traceparent` (https://www.w3.org/TR/trace-context/) as it came; None for what is none."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


class Span(Protocol):
    """Something that takes time, and its place in a trace."""

    traceparent: str | None
    """What a part of it that is done elsewhere is told."""

    def add(self, timeline: Timeline) -> None:
        """Parts of it that are over."""

    def end(self, code: str = "ok", *, at: float | None = None) -> None:
        """It is over; `code` is that of its error, `at` the unix second (now)."""


class Tracer(Protocol):
    """Makes spans."""

    def start(
        self,
        name: str,
        traceparent: str | None,
        *,
        at: float | None = None,
        kind: str = "server",
        **attributes: str | float | bool | None,
    ) -> Span:
        """Begin one, as a part of what the `traceparent` names.

        Args:
            at: unix second at which it began, if that is over.
            kind: `server`, `client`, `consumer` or `internal`.
        """
        ...

    def close(self) -> None:
        """Send what is left."""


class NoSpan:
    """Nobody wants it: the trace goes on as it came."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def add(self, timeline: Timeline) -> None:
        """Nothing."""

    def end(self, code: str = "ok", *, at: float | None = None) -> None:
        """Nothing."""


class NoTracer:
    """Nobody wants spans."""

    def start(
        self,
        name: str,  # noqa: ARG002 - as a tracer does
        traceparent: str | None,
        *,
        at: float | None = None,  # noqa: ARG002 - as above
        kind: str = "server",  # noqa: ARG002 - as above
        **_: str | float | bool | None,
    ) -> Span:
        """A span that is nothing but its place."""
        return NoSpan(traceparent)

    def close(self) -> None:
        """Nothing."""


def open_tracer(service: str, endpoint: str | None) -> Tracer:
    """What sends spans to an OTLP endpoint; nothing does without one, or without OpenTelemetry here.

    Args:
        service: the name under which they appear.
        endpoint: `http://host:4318`, to which `/v1/traces` is added.
    """
    if endpoint is None:
        return NoTracer()
    try:
        room = importlib.import_module("bus_worker.telemetry")
    except ImportError as exc:
        _log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but %s is not installed:"
            " pip install 'bus-worker[traces]'", exc.name or "OpenTelemetry",
        )  # fmt: skip
        return NoTracer()
    tracer: Tracer = room.OtlpTracer(service, endpoint)
    return tracer
