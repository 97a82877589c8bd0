"""Where spans are sent to: what an OTLP collector would take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """The spans that came, each with the service that sent it."""

    url: str
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def named(self, service: str, name: str) -> Any:
        (found,) = (span for of, span in self.spans if (of, span.name) == (service, name))
        return found

    def names(self, service: str) -> list[str]:
        return sorted(span.name for of, span in self.spans if of == service)


@contextmanager
def collector() -> Iterator[Collector]:
    """One on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    there.spans += [(about["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Collector(f"http://127.0.0.1:{server.server_port}")
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
