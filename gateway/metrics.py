"""What the gateway counts of itself, for Prometheus."""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from starlette.types import Scope

from bus_worker import __version__

__all__ = ["Metrics"]

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counts of one gateway process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._requests = Counter(
            "bus_gateway_requests_total", "Requests answered.", labels, registry=self._registry
        )
        self._seconds = Histogram(
            "bus_gateway_request_duration_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("route",), buckets=BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._in_hand = Gauge(
            "bus_gateway_requests_in_hand", "Requests not yet answered.", registry=self._registry
        )
        build = Info("bus_gateway_build", "Which gateway this is.", registry=self._registry)
        build.info({"version": __version__})
        ProcessCollector(registry=self._registry)

    @contextlib.contextmanager
    def request(self, scope: Scope, status: Callable[[], int]) -> Iterator[None]:
        """Count one request; `status` tells of its answer, 0 for none."""
        began = time.perf_counter()
        self._in_hand.inc()
        try:
            yield
        finally:
            self._in_hand.dec()
            # Only names that we gave: a stranger must not make a label of every address he tries.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._requests.labels(route, method, status()).inc()
            self._seconds.labels(route).observe(time.perf_counter() - began)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
