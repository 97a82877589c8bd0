"""What a worker's metrics say, as a plain map."""

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
