"""Which sections run, where their figures go."""

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bus_worker.bench import cache, claims, door, load, road, start
from bus_worker.bench.report import Section, circumstances, table
from bus_worker.errors import BusWorkerError

__all__ = ["main"]

SECTIONS = {
    "load": load.measure,
    "road": road.measure,
    "cache": cache.measure,
    "claims": claims.measure,
    "door": door.measure,
    "start": start.measure,
}
FOLDER = Path("bench-results")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections asked for; returns the exit status."""
    args = _parser().parse_args(argv)
    report = circumstances(
        shlex.join(["python", "-m", "bus_worker.bench", *(argv or sys.argv[1:])])
    )
    _say(f"{report['machine']}, {report['date'][:10]}")
    try:
        report["sections"] = asyncio.run(_run(args.sections or list(SECTIONS), quick=args.quick))
    except BusWorkerError as exc:
        sys.stderr.write(f"bus-worker bench: {exc.message}\n")
        return 1
    path = args.json or FOLDER / f"{report['date'].replace(':', '')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    _say(f"\nwritten to {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bus_worker.bench",
        description="Measure, print tables, and keep the figures as JSON.",
    )
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        type=_section,
        help=f"{', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="short runs, rough figures")
    parser.add_argument("--json", type=Path, metavar="PATH", help=f"default: a file in {FOLDER}/")
    return parser


def _section(name: str) -> str:
    if name not in SECTIONS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SECTIONS)}")
    return name


async def _run(names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for name in names:
        section: Section = await SECTIONS[name](quick=quick)
        _say(f"\n{section.title}\n{table(section.rows)}\n{section.notes}")
        sections[name] = {"title": section.title, "rows": section.rows, "notes": section.notes}
    return sections


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
