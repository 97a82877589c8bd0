"""`bench`: how fast and how right this machine hears, beside faster-whisper itself; or which settings suit it."""

import asyncio
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping

from bus_worker.bench.contenders import Setup
from bus_worker.bench.contest import Contest, measure, need, prepared
from bus_worker.bench.drawing import draw
from bus_worker.bench.report import Section, circumstances, keep, shown
from bus_worker.bench.seat import Wanted
from bus_worker.bench.tune import advice, tune
from bus_worker.cli.terminal import say
from bus_worker.settings import load_settings

__all__ = ["run"]

TOLD = {"given": (True,), "detected": (False,), "both": (True, False)}


def run(args: Namespace) -> int:
    """Measure, print, and keep the figures as JSON with pictures beside."""
    gateway = ["starlette"] if "http" in args.via and not args.tune else []
    need("jiwer", "matplotlib", "whisper_normalizer", *gateway)
    report = circumstances(shlex.join(["bus-worker", *sys.argv[1:]]))
    say(f"{report['machine']}, {report['date'][:10]}, load average {report['load_average_before']}")
    return asyncio.run(_tune(args, report) if args.tune else _compare(args, report))


async def _compare(args: Namespace, report: dict[str, object]) -> int:
    contest = Contest(
        _wanted(args), await _setup(args), via=args.via, against=args.against,
        at_once=args.at_once, told=TOLD[args.language], most=args.most,
    )  # fmt: skip
    outcome = await measure(contest, _tell)
    _print(outcome.sections)
    report |= {"sections": _plain(outcome.sections), "heard": outcome.clips}
    path = keep(report, args.json)
    speed = outcome.sections["speed"]
    title = f"{speed.title}\n{report['machine']}, {str(report['date'])[:10]}"
    pictures = draw(speed.rows, path, title)
    say(f"\nwritten to {', '.join(map(str, [path, *pictures]))}")
    return 0


async def _tune(args: Namespace, report: dict[str, object]) -> int:
    found = await tune(_wanted(args), await _setup(args), args.most, _tell)
    _print(found.sections)
    say(f"\n{advice(found)}")
    report |= {"sections": _plain(found.sections), "settings": found.settings}
    say(f"\nwritten to {keep(report, args.json)}")
    return 0


def _wanted(args: Namespace) -> Wanted:
    return Wanted(str(args.place.resolve()), args.longest, args.languages)


async def _setup(args: Namespace) -> Setup:
    return await prepared(
        args.model, load_settings().model_dir, replicas=args.replicas, threads=args.threads,
        device=args.device, compute=args.compute_type, longest=args.longest, options=dict(args.set),
    )  # fmt: skip


def _print(sections: Mapping[str, Section]) -> None:
    for section in sections.values():
        say(shown(section))


def _plain(sections: Mapping[str, Section]) -> dict[str, object]:
    return {
        name: {"title": section.title, "rows": section.rows, "notes": section.notes}
        for name, section in sections.items()
    }


def _tell(text: str) -> None:
    """How far it is: this takes minutes."""
    sys.stderr.write(f"{text} …\n")
    sys.stderr.flush()
