"""Which sections run, where their figures go."""

import argparse
import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from bus_worker.bench import accuracy, cache, claims, door, jobs, load, road, spread, start
from bus_worker.bench.report import FOLDER, Section, circumstances, keep, shown
from bus_worker.errors import BusWorkerError

__all__ = ["main"]

SECTIONS = {
    "load": load.measure,
    "road": road.measure,
    "cache": cache.measure,
    "claims": claims.measure,
    "door": door.measure,
    "jobs": jobs.measure,
    "spread": spread.measure,
    "start": start.measure,
}
ACCURACY = "accuracy"
"""Takes clips, and takes long: it runs when it is asked for, alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections asked for; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = (_listening() if argv[:1] == [ACCURACY] else _parser()).parse_args(argv)
    report = circumstances(shlex.join(["python", "-m", "bus_worker.bench", *argv]))
    _say(f"{report['machine']}, {report['date'][:10]}")
    try:
        report["sections"] = asyncio.run(_run(args))
    except BusWorkerError as exc:
        sys.stderr.write(f"bus-worker bench: {exc.message}\n")
        return 1
    _say(f"\nwritten to {keep(report, args.json)}")
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
        help=f"{', '.join(SECTIONS)} (default: all); or `{ACCURACY} PLACE`",
    )
    _common(parser)
    return parser


def _listening() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"python -m bus_worker.bench {ACCURACY}",
        description="Compare the engine with faster-whisper itself on your clips.",
    )
    parser.add_argument("section", choices=[ACCURACY], help=argparse.SUPPRESS)
    accuracy.arguments(parser)
    _common(parser)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="short runs, rough figures")
    parser.add_argument("--json", type=Path, metavar="PATH", help=f"default: a file in {FOLDER}/")


def _section(name: str) -> str:
    if name not in SECTIONS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SECTIONS)}")
    return name


async def _run(args: argparse.Namespace) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    async for name, section in _measured(args):
        _say(shown(section))
        sections[name] = {"title": section.title, "rows": section.rows, "notes": section.notes}
    return sections


async def _measured(args: argparse.Namespace) -> AsyncIterator[tuple[str, Section]]:
    if "section" in args:
        for section in await accuracy.measure(args):
            yield section.title.partition(":")[0].lower(), section
        return
    for name in args.sections or SECTIONS:
        yield name, await SECTIONS[name](quick=args.quick)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
