"""How fast the engine is, and how right, against faster-whisper itself: the same clips, in turns.

`python -m bus_worker.bench accuracy PLACE` takes a folder or a manifest (see `clips`).
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bus_worker.bench.clips import Clip, read_clips
from bus_worker.bench.engines import OURS, STOCK, Engine, Timed, hear_all, opened
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.bench.verdict import compared, counted, rate, times_agree

__all__ = ["TURN", "arguments", "measure", "verdicts", "words_section"]

TURN = 24
"""Clips an engine hears before the next has its turn: what else the machine does hits all alike."""
QUICK = 4
"""A quick run takes every so many-th clip."""
ASKED = {True: "given", False: "detected"}

Runs = Mapping[str, Timed]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What may be said on the command line."""
    parser.add_argument("place", type=Path, metavar="PLACE", help="a folder or a manifest")
    parser.add_argument("--model", default="base", metavar="NAME")
    parser.add_argument("--replicas", type=int, default=2, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of one replica")
    parser.add_argument("--at-once", type=_numbers, default=[1, 2, 8], metavar="N,…")
    parser.add_argument("--languages", type=_names, metavar="CODE,…", help="default: all")
    parser.add_argument("--ask", choices=("given", "detected", "both"), default="both")
    parser.add_argument("--longest", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--words", action="store_true", help="compare the words' times too")
    parser.add_argument(
        "--set",
        action="append",
        type=_setting,
        default=[],
        metavar="VARIABLE=VALUE",
        help="a setting of ours",
    )


async def measure(args: argparse.Namespace) -> list[Section]:
    """Every engine on every clip, for each number at once, the language given and detected."""
    clips = read_clips(args.place, longest=args.longest, languages=args.languages)
    clips = clips[:: QUICK if args.quick else 1]
    options = dict(args.set)
    speed: list[Row] = []
    words: list[Row] = []
    async with opened(args.model, args.replicas, args.threads, options) as engines:
        for told in (True, False):
            if args.ask in ("both", ASKED[told]):
                first: Runs | None = None
                for at_once in args.at_once:
                    runs = await _in_turns(engines, clips, at_once, told=told)
                    first = first or runs
                    speed += _speeds(clips, runs, at_once, told=told)
                words += verdicts(clips, first or {}, told=told)
        sections = [_speed_section(clips, speed, args), words_section(words)]
        if args.words:
            sections.append(await _times(engines, [c for c in clips if c.language == "en"]))
    return sections


async def _in_turns(
    engines: Mapping[str, Engine],
    clips: Sequence[Clip],
    at_once: int,
    *,
    told: bool,
    words: bool = False,
) -> Runs:
    runs = {name: Timed() for name in engines}
    for turn, part in enumerate(_parts(clips)):
        names = list(engines)
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            await hear_all(engines[name], part, at_once, told=told, words=words, into=runs[name])
    return runs


def _parts(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    rest = iter(clips)
    while part := list(itertools.islice(rest, TURN)):
        yield part


def _speeds(clips: Sequence[Clip], runs: Runs, at_once: int, *, told: bool) -> Iterator[Row]:
    seconds = sum(clip.seconds for clip in clips)
    for name, timed in runs.items():
        yield {
            "engine": name,
            "language": ASKED[told],
            "at once": at_once,
            "x real time": round(seconds / timed.wall, 2),
            "p50 ms": round(percentile(timed.each, 0.5) * 1000),
            "p95 ms": round(percentile(timed.each, 0.95) * 1000),
            "ours is x as fast": round(timed.wall / runs[OURS].wall, 2),
            "our p50 is x": round(
                percentile(runs[OURS].each, 0.5) / percentile(timed.each, 0.5), 2
            ),
        }


def verdicts(clips: Sequence[Clip], runs: Runs, *, told: bool) -> Iterator[Row]:
    """A row for English and one for the rest: both engines, and whether the difference is noise."""
    sets = {
        "English": [clip for clip in clips if clip.language == "en"],
        "other languages": [clip for clip in clips if clip.language != "en"],
    }
    for what, part in sets.items():
        if not part:
            continue
        ours, stock = (counted(part, runs[name].heard) for name in (OURS, STOCK))
        verdict = compared(part, ours, stock)
        yield {
            "clips": f"{what}, {len(part)}",
            "language": ASKED[told],
            "our errors %": round(100 * rate(ours), 2),
            "stock's %": round(100 * rate(stock), 2),
            "difference": round(100 * verdict.difference, 2),
            "95 %": f"{100 * verdict.low:+.2f} … {100 * verdict.high:+.2f}",
            "better": verdict.better,
            "worse": verdict.worse,
            "ruined": ", ".join(verdict.ruined) or 0,
        }


async def _times(engines: Mapping[str, Engine], clips: Sequence[Clip]) -> Section:
    both = {name: engines[name] for name in (OURS, STOCK)}
    runs = await _in_turns(both, clips, 2, told=True, words=True)
    near, equal = times_agree(runs[OURS].heard, runs[STOCK].heard)
    row = {"equal words": equal, "within 0.1 s": near, "%": round(100 * near / max(1, equal), 1)}
    return Section("Times of words: against stock's", [row], "English clips, start and end both.")


def _speed_section(clips: Sequence[Clip], rows: Sequence[Row], args: argparse.Namespace) -> Section:
    seconds = sum(clip.seconds for clip in clips)
    return Section(
        f"Speed: {len(clips)} clips, {seconds:.0f} s, model {args.model}, int8,"
        f" {args.replicas} x {args.threads} threads",
        rows,
        f"In turns of {TURN} clips; each engine reads the file's bytes itself.",
    )


def words_section(rows: Sequence[Row]) -> Section:
    """The table of `verdicts`."""
    return Section(
        f"Accuracy: word error rates, against {STOCK}",
        rows,
        "Whisper's normaliser; the difference's interval is a paired bootstrap over clips. Ruined:"
        " clips that stock reads with 10 % errors or less, and ours with more than 40 %.",
    )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no VARIABLE=VALUE")
    return name, value
