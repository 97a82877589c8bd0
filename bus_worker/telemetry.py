"""Spans sent to an OTLP endpoint by OpenTelemetry's own library, from a thread of its own."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bus_worker import __version__
from bus_worker.tracing import Span, Timeline

__all__ = ["OtlpSpan", "OtlpTracer"]

CLOSE_WITHIN = 2_000
"""Milliseconds that sending the last spans may take."""

PATIENCE = 3
"""Seconds that one batch is tried for: a collector that is away must not keep a worker from leaving."""

_W3C = TraceContextTextMapPropagator()


class OtlpSpan:
    """One span and its parts."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        self.traceparent: str | None = carrier.get("traceparent")

    def add(self, timeline: Timeline) -> None:
        """Parts of it that are over."""
        context = trace.set_span_in_context(self._span)
        for name, start, end in timeline:
            part = self._tracer.start_span(name, context, start_time=_ns(start))
            part.end(_ns(end))

    def end(self, code: str = "ok", *, at: float | None = None) -> None:
        """It is over."""
        if code != "ok":
            self._span.set_attribute("error.type", code)
            self._span.set_status(StatusCode.ERROR)
        self._span.end(None if at is None else _ns(at))


class OtlpTracer:
    """Makes spans and sends them, many at a time; one that cannot be sent is dropped."""

    def __init__(self, service: str, endpoint: str) -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("bus-worker", __version__)

    def start(
        self,
        name: str,
        traceparent: str | None,
        *,
        at: float | None = None,
        kind: str = "server",
        **attributes: str | float | bool | None,
    ) -> Span:
        """Begin one, as a part of what the `traceparent` names."""
        parent = _W3C.extract({"traceparent": traceparent} if traceparent else {})
        span = self._tracer.start_span(
            name,
            parent,
            SpanKind[kind.upper()],
            {key: value for key, value in attributes.items() if value is not None},
            start_time=None if at is None else _ns(at),
        )
        return OtlpSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is left, within a bound."""
        self._provider.force_flush(CLOSE_WITHIN)
        self._provider.shutdown()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
