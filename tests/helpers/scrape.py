"""What a worker's metrics and its log lines say, as plain maps."""

from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bus_worker.metrics import Metrics


def scraped(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, without the prefix."""
    text = generate_latest(metrics.registry).decode()
    return {
        sample.name.removeprefix("bus_worker_")
        + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def overheard(monkeypatch: pytest.MonkeyPatch, *rooms: str) -> list[dict[str, Any]]:
    """The log lines of these rooms from now on; a logger that was used before keeps its own way else."""
    capture = structlog.testing.LogCapture()
    for room in rooms:
        log = structlog.wrap_logger(None, [capture], wrapper_class=structlog.BoundLogger)
        monkeypatch.setattr(f"{room}._log", log)
    lines: list[dict[str, Any]] = capture.entries
    return lines
