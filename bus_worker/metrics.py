"""What a worker measures, for Prometheus: work as it ends, and at each scrape what is counted elsewhere."""

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus_worker import __version__
from bus_worker.errors import BusWorkerError, ClaimExpired, error_codes
from bus_worker.tracing import Timeline

__all__ = ["Lane", "Metrics", "Work"]

Lane = Literal["request", "job", "window"]

LANES: tuple[Lane, ...] = ("request", "job", "window")
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WAITS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 60, 300, 1800)
FACTORS = (0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1, 2, 5)
CODES = error_codes() | {"ok"}
EXPECTED = ("ok", "failed", "deadline_exceeded", "unavailable", "other")
"""Codes that are there from the start: what is alerted on, and what that is a part of."""
ROWS = (1, 2, 4, 8, 16, 32)
MUCH = 1e9
MAX_PARTS = 32
"""Names of an engine's parts that become labels: a plugin chooses them."""
MAX_CALLS = 256
"""Decoder calls of one piece of work that are looked at."""


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work at its end. What a plugin noted is believed only where it can be counted.

    Args:
        code: `ok`, or the code of its error.
        seconds: from arrival to answer; of a job one attempt, of a window its hearing.
        waited: seconds before it was begun, where it was.
        audio: seconds of audio that were answered.
        stages: seconds of each stage that ran for it.
        spans: seconds of parts of stages.
        notes: what stages noted.
        at: unix second at which it began, its waiting included.
        traceparent: what it is a part of.
        timeline: its parts.
    """

    lane: Lane
    code: str
    seconds: float
    waited: float | None = None
    audio: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    spans: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0
    traceparent: str | None = None
    timeline: Timeline = field(default_factory=list)


class Metrics:
    """One worker's, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        self.ended: Counter[tuple[Lane, str]] = Counter()
        """Jobs' attempts and windows, by code; a service counts its requests itself."""
        self._parts: set[str] = set()
        prometheus.ProcessCollector(registry=registry)

        def histogram(
            name: str, says: str, *labels: str, buckets: tuple[float, ...] = DURATIONS
        ) -> prometheus.Histogram:
            return prometheus.Histogram(
                f"bus_worker_{name}", says, labels, buckets=buckets, registry=registry
            )

        def counter(name: str, says: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"bus_worker_{name}", says, labels, registry=registry)

        self._seconds = histogram(
            "request_duration_seconds", "From arrival to answer; of a job one attempt.", "lane"
        )
        self._waited = histogram(
            "queue_wait_seconds", "Before work was begun.", "lane", buckets=WAITS
        )
        self._stages = histogram("stage_duration_seconds", "In one stage.", "stage")
        self._engine = histogram("engine_duration_seconds", "In one part of a stage.", "part")
        self._factor = histogram(
            "real_time_factor", "Seconds of work per second of audio heard.", buckets=FACTORS
        )
        self._rows = histogram("batch_size", "Rows of one decoder call.", buckets=ROWS)
        self._audio = counter("audio_seconds_total", "Seconds of audio answered.", "lane")
        self._reruns = counter(
            "short_context_reruns_total", "Windows encoded again with a longer context."
        )
        self._claims = counter("claim_checks_total", "Audio fetched with a ticket.", "outcome")
        self._jobs = counter("jobs_total", "Jobs that ended here, by how.", "status")
        self._again = counter("redeliveries_total", "Jobs and windows that came once more.")
        self._dead = counter("dead_letters_total", "Jobs given up, kept with their reason.")
        self._webhooks = counter("webhooks_total", "Attempts to tell a webhook.", "outcome")
        for metric, values in (
            (self._seconds, LANES),
            (self._waited, ("request", "job")),
            (self._audio, LANES),
            (self._claims, ("fetched", "expired", "failed")),
            (self._jobs, ("done", "failed", "cancelled")),
            (self._webhooks, ("told", "retried", "given_up")),
        ):
            for value in values:  # there from the start: a rate needs a zero to begin with
                metric.labels(value)

    def reads(self, figures: Callable[[], Mapping[str, Any]]) -> None:
        """Read what the worker counts anyway (see `Service.figures`) at each scrape."""
        self.registry.register(_AtScrape(self.ended, figures))

    def observe(self, work: Work) -> None:
        """Count one piece of work."""
        if work.lane != "request":
            self.ended[work.lane, work.code] += 1
        self._seconds.labels(work.lane).observe(work.seconds)
        if work.waited is not None:
            self._waited.labels(work.lane).observe(max(0.0, work.waited))
        if _is_amount(work.audio):
            self._audio.labels(work.lane).inc(work.audio)
        if (
            work.notes.get("shared") is not True
        ):  # else the work was another's, and is counted there
            self._observe_hearing(work)

    def _observe_hearing(self, work: Work) -> None:
        for name, seconds in work.stages.items():
            self._stages.labels(name).observe(seconds)
        for name, seconds in work.spans.items():
            if _is_amount(seconds):
                self._engine.labels(self._part(name)).observe(seconds)
        if (
            work.audio > 0
            and _is_amount(work.audio)
            and work.stages
            and work.notes.get("cache_hit") is not True
        ):
            self._factor.observe(sum(work.stages.values()) / work.audio)
        reruns = work.notes.get("reruns", 0)
        if _is_amount(reruns):
            self._reruns.inc(reruns)
        for rows in _calls(work.notes.get("calls")):
            self._rows.observe(rows)

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        """Count how fetching with a ticket ends."""
        try:
            yield
        except ClaimExpired:
            self._claims.labels("expired").inc()
            raise
        except BusWorkerError:
            self._claims.labels("failed").inc()
            raise
        self._claims.labels("fetched").inc()

    def job_ended(self, status: str) -> None:
        """Count a job's end."""
        self._jobs.labels(status).inc()

    def came_again(self) -> None:
        """Count a message that was in hand before."""
        self._again.inc()

    def dead_letter(self) -> None:
        """Count a job that was given up."""
        self._dead.inc()

    def webhook(self, outcome: Literal["told", "retried", "given_up"]) -> None:
        """Count an attempt to tell a webhook."""
        self._webhooks.labels(outcome).inc()

    def _part(self, name: object) -> str:
        known = str(name)[:40]
        if known in self._parts or len(self._parts) < MAX_PARTS:
            self._parts.add(known)
            return known
        return "other"


class _AtScrape(Collector):
    """Turns a worker's figures into metrics when somebody asks."""

    def __init__(
        self, ended: Counter[tuple[Lane, str]], figures: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._ended = ended
        self._figures = figures

    def describe(self) -> list[Metric]:
        """Nothing before the first scrape: there may be no model yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment."""
        now = self._figures()
        yield _gauge("build_info", "Which worker this is.", 1, version=__version__)
        yield _gauge("ready", "Whether it can serve.", now["ready"])
        yield _gauge("bus_connected", "Whether the bus is there.", now["bus_connected"])
        if "model" not in now:
            return
        names = ("model", "revision", "device", "compute_type")
        yield _gauge("model_info", "What it serves.", 1, **{n: str(now[n] or "") for n in names})
        yield self._requests(now["answers"])
        yield _labelled(
            GaugeMetricFamily, "slots", "Room for work.", "state",
            {"free": max(0, now["slots"] - now["in_flight"]), "taken": now["in_flight"], "aside": now["waiting"]},
        )  # fmt: skip
        yield _gauge("credits", "Slots offered to the bus.", now["credits"])
        yield _gauge("stuck_threads", "Threads that outlive their answer.", now["stuck"])
        yield _gauge("jobs_in_hand", "Jobs and windows in hand.", now["jobs_in_hand"])
        for name, says, key in (
            ("bus_reconnects", "Times the bus was found again.", "reconnects"),
            ("undecodable_messages", "Messages whose headers cannot be read.", "undecodable"),
            ("overshoot", "Messages that came without room.", "overshoot"),
        ):
            yield CounterMetricFamily(f"bus_worker_{name}", says, now[key])
        yield from _cache(now["cache"])

    def _requests(self, answers: Mapping[str, int]) -> Metric:
        counted: Counter[tuple[str, str]] = Counter()
        for code, count in dict(answers).items():
            counted["request", _known(code)] += count
        for (lane, code), count in dict(self._ended).items():
            counted[lane, _known(code)] += count
        family = CounterMetricFamily(
            "bus_worker_requests", "Work that ended, by how.", labels=("lane", "outcome", "code")
        )
        for known in itertools.product(LANES, EXPECTED):
            counted.setdefault(known, 0)  # a rate needs a zero to begin with
        for (name, code), count in sorted(counted.items()):
            family.add_metric((name, "ok" if code == "ok" else "error", code), count)
        return family


def _cache(figures: Mapping[str, Any]) -> Iterator[Metric]:
    results = {"hit": "hits", "miss": "misses", "shared": "shared"}
    yield _labelled(
        CounterMetricFamily, "cache_requests", "What was asked of the cache.", "result",
        {result: figures[key] for result, key in results.items()},
    )  # fmt: skip
    yield CounterMetricFamily(
        "bus_worker_cache_errors", "Commands that the cache failed.", figures.get("errors", 0)
    )
    is_open = figures.get("breaker", "closed") != "closed"
    yield _gauge("cache_breaker_open", "Whether requests go on without it.", is_open)


def _gauge(name: str, says: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(f"bus_worker_{name}", says, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), float(value))
    return family


def _labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    says: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"bus_worker_{name}", says, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _known(code: str) -> str:
    """A code of ours; a plugin may have classes of its own."""
    return code if code in CODES else "other"


def _is_amount(value: object) -> bool:
    """Whether a plugin's figure is one: neither a flag, nor negative, endless or no number."""
    return isinstance(value, int | float) and value is not True and 0 <= value < MUCH


def _calls(noted: object) -> list[int]:
    """Rows of each decoder call, as `1,4,2`; none where a plugin noted something else."""
    pieces = noted.split(",", MAX_CALLS)[:MAX_CALLS] if isinstance(noted, str) else []
    return [int(piece) for piece in pieces if re.fullmatch(r"[0-9]{1,4}", piece)]
