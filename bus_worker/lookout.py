"""The small HTTP that shows how a worker is: `/metrics`, `/live` and `/ready`, whatever else keeps it busy."""

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from bus_worker.errors import BadSetting

__all__ = ["Lookout"]

_log = logging.getLogger(__name__)

AT_ONCE = 16
"""Connections served side by side; more are hung up on."""
PATIENCE = 5.0
"""Seconds that a caller may be silent."""

Reasons = Callable[[], list[str]]
Start = Callable[[str, list[tuple[str, str]]], Any]


class Lookout:
    """Serves in threads of its own: it answers while the event loop and the model are busy."""

    def __init__(
        self, registry: CollectorRegistry, *, not_live: Reasons, not_ready: Reasons
    ) -> None:
        """Args: not_live and not_ready say why not, each reason a sentence; none is well."""
        self._metrics = make_wsgi_app(registry)
        self._reasons = {"/live": ("alive", not_live), "/ready": ("ready", not_ready)}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def open(self, host: str, port: int) -> int:
        """Serve there from now on; the port, which is any free one for 0.

        Raises:
            BadSetting: the port is taken, or the address is none of ours.
        """
        try:
            (family, _, _, _, address), *_ = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            kind = type("_Family", (_Server,), {"address_family": family})
            self._server = kind(address[:2], _Handler)
        except OSError as exc:
            raise BadSetting(
                f"METRICS_PORT={port}: cannot listen at {host}:{port} ({exc.strerror}); another worker"
                " may have it: METRICS_PORT=0 takes any that is free",
                variable="METRICS_PORT",
            ) from exc
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="lookout", daemon=True
        )
        self._thread.start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Hang up."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _answer(self, asked: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = asked["PATH_INFO"]
        if asked["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _say(asked, start, "405 Method Not Allowed", {"status": "GET only"})
        if path == "/metrics":
            written: Iterable[bytes] = self._metrics(asked, start)
            return written
        if path not in self._reasons:
            known = ["/metrics", *self._reasons]
            return _say(asked, start, "404 Not Found", {"status": "not found", "paths": known})
        well, why_not = self._reasons[path]
        reasons = why_not()
        said = {"status": f"not {well}" if reasons else well, "reasons": reasons}
        return _say(asked, start, "503 Service Unavailable" if reasons else "200 OK", said)


def _say(asked: dict[str, Any], start: Start, status: str, said: dict[str, Any]) -> Iterable[bytes]:
    body = json.dumps(said).encode() + b"\n"
    start(
        status,
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [b"" if asked["REQUEST_METHOD"] == "HEAD" else body]


class _Server(ThreadingWSGIServer):
    """The standard library's, which asks no name server at its start, and has an end to its patience."""

    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Any, handler: type[WSGIRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        _log.debug("a caller left before its answer", exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Nothing: whoever looks every few seconds is no event."""
