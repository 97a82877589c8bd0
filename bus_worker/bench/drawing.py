"""Throughput and latency over the number at once, drawn: SVG for a page, PNG for a chat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bus_worker.bench.report import Row

__all__ = ["draw"]

WIDTH, HEIGHT = 11.0, 4.0
"""Inches of one line of two pictures."""
KINDS = ("svg", "png")


def draw(rows: Sequence[Row], path: Path, title: str) -> list[Path]:
    """The rows of a contest as pictures at `path`, with the endings `.svg` and `.png`; returns both paths."""
    from matplotlib import rc_context  # noqa: PLC0415 - a tool of this bench alone
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    languages = list(dict.fromkeys(row["language"] for row in rows))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9}):
        figure = Figure((WIDTH, HEIGHT * len(languages) + 0.9), layout="constrained")
        grid = figure.subplots(len(languages), 2, squeeze=False)
        for line, language in zip(grid, languages, strict=True):
            part = [row for row in rows if row["language"] == language]
            _throughput(line[0], part, language)
            _latency(line[1], part, language)
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle(title, fontsize=9)
        paths = [path.with_suffix(f".{kind}") for kind in KINDS]
        for each in paths:
            figure.savefig(each, dpi=150)
    return paths


def _throughput(axes: Any, rows: Sequence[Row], language: str) -> None:
    for who in _who(rows):
        mine = [row for row in rows if row["who"] == who]
        axes.plot(
            [r["at once"] for r in mine], [r["x real time"] for r in mine], marker="o", label=who
        )
    _dressed(axes, rows, f"Throughput, language {language}", "x real time")
    axes.set_ylim(bottom=0)


def _latency(axes: Any, rows: Sequence[Row], language: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 - as above

    for number, who in enumerate(_who(rows)):
        mine = [row for row in rows if row["who"] == who]
        for part, style in (("p50 ms", "-"), ("p95 ms", ":")):
            seconds = [row[part] / 1000 for row in mine]
            axes.plot([r["at once"] for r in mine], seconds, style, marker=".", color=f"C{number}")
    _dressed(axes, rows, f"Latency, language {language}: p50, p95 dotted", "seconds")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dressed(axes: Any, rows: Sequence[Row], title: str, measure: str) -> None:
    numbers = sorted({row["at once"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.set(title=title, xlabel="requests at once", ylabel=measure)
    axes.grid(visible=True, alpha=0.3)


def _who(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["who"] for row in rows))
