"""`bus-worker bench`: the same clips for bus-worker by each road and for faster-whisper, in turns, in one run."""

import importlib.util
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bus_worker.bench.accuracy import TURN, verdicts, words_section
from bus_worker.bench.clips import Clip
from bus_worker.bench.contenders import AGAINST, VIA, Setup
from bus_worker.bench.engines import OURS, STOCK
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.bench.seat import Run, Seat, Wanted, seated
from bus_worker.bench.verdict import counted, rate
from bus_worker.errors import SetupError
from bus_worker.model_store import find_model
from bus_worker.settings import load_settings
from bus_worker.worker import build_pipeline

__all__ = ["ROUNDS", "Contest", "Outcome", "measure", "need", "prepared", "spaced"]

ASKED = {True: "given", False: "detected"}
ROUNDS = 2
"""Each caller has at least so many clips to bring, or the run would be all beginning and end."""
TURNS = 4
"""Few clips are shared out among so many turns, where that leaves enough for every caller."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Contest:
    """What is asked for."""

    wanted: Wanted
    setup: Setup
    via: Sequence[str] = tuple(VIA)
    against: Sequence[str] = tuple(AGAINST)
    at_once: Sequence[int] = (1, 2, 8, 32)
    told: Sequence[bool] = (True, False)
    """Whether the language is given: one way, or both."""
    most: int | None = None
    """Clips at most, taken evenly from all that there are."""

    @property
    def names(self) -> list[str]:
        """The contenders, ours first."""
        return [*(VIA[way] for way in self.via), *(AGAINST[whom] for whom in self.against)]


@dataclass(slots=True)
class Outcome:
    """All that was found."""

    sections: dict[str, Section] = field(default_factory=dict)
    clips: list[dict[str, Any]] = field(default_factory=list)
    """What each contender wrote down of each clip, for whoever wants to look."""


def need(*libraries: str) -> None:
    """Raise for a library that only the bench needs, and that is not here.

    Raises:
        SetupError: says what to install.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"`bus-worker bench` needs {', '.join(missing)}, which is not installed here:"
            " pip install 'bus-worker[worker,gateway,embedded,bench]'"
        )


async def prepared(
    model: str, model_dir: Path | None, *, replicas: int | None, **how: Any
) -> Setup:
    """The model's files found, and as many replicas as a worker here would take if none are asked for.

    Args:
        how: other fields of `Setup`.
    """
    import ctranslate2  # noqa: PLC0415 - half a second, for this alone

    found = find_model(model, model_dir=model_dir)
    if how.get("device") == "auto":
        gpus = ctranslate2.get_cuda_device_count()  # type: ignore[attr-defined]  # has no types
        how["device"] = "cuda" if gpus else "cpu"
    setup = Setup(str(found.path), found.info.name, **how)
    if replicas is None:
        variables = {**setup.variables, "WHISPER__BATCH": "1"}
        del variables["WHISPER_REPLICAS"]
        async with build_pipeline(load_settings(variables), variables).open() as pipeline:
            replicas = pipeline.serves.slots if pipeline.serves else 1
    return replace(setup, replicas=replicas)


async def measure(contest: Contest, tell: Tell) -> Outcome:
    """Every contender on every clip, for each number at once, the language given and detected.

    Raises:
        SetupError: no clips, or a contender that cannot be opened.
    """
    clips = spaced(contest.wanted.read(), contest.most)
    outcome = Outcome()
    speed: list[Row] = []
    words: list[Row] = []
    tell(
        f"{len(clips)} clips, {sum(clip.seconds for clip in clips):.0f} s; opening {len(contest.names)}"
    )
    async with _seats(contest) as sitting:
        for told in contest.told:
            for at_once in contest.at_once:
                tell(f"language {ASKED[told]}, {at_once} at once")
                runs = await _in_turns(sitting, clips, at_once, told=told)
                speed += _rows(clips, runs, at_once, told=told)
                outcome.clips += _written(runs, at_once, told=told)
                if at_once == contest.at_once[0]:
                    words += _verdicts(clips, runs, told=told)
    outcome.sections["speed"] = _section(clips, speed, contest)
    if words:
        outcome.sections["accuracy"] = words_section(words)
    return outcome


def spaced(clips: Sequence[Clip], most: int | None) -> list[Clip]:
    """So many clips at most, as far apart in the list as can be."""
    count = min(len(clips), most or len(clips))
    return [clips[n * len(clips) // count] for n in range(count)]


@asynccontextmanager
async def _seats(contest: Contest) -> AsyncIterator[dict[str, Seat]]:
    """Each contender in a process of its own, one opened after the other."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(seated(name, contest.setup, contest.wanted))
            for name in contest.names
        }


async def _in_turns(
    sitting: Mapping[str, Seat], clips: Sequence[Clip], at_once: int, *, told: bool
) -> dict[str, Run]:
    """All hear the clips, part after part, each time another first: what else the machine does hits all."""
    runs = {name: Run() for name in sitting}
    for turn, part in enumerate(_parts(clips, at_once)):
        shift = turn % len(sitting)
        order = [*sitting][shift:] + [*sitting][:shift]
        for name in order:
            await sitting[name].hear(part, at_once, told=told, into=runs[name])
    return runs


def _parts(clips: Sequence[Clip], at_once: int) -> Iterator[Sequence[Clip]]:
    """Turns long enough for so many callers; a few clips come several times for many callers."""
    least = ROUNDS * at_once
    all_ = list(clips) * math.ceil(least / len(clips))
    count = max(1, min(len(all_) // least, max(TURNS, len(all_) // TURN)))
    cuts = [n * len(all_) // count for n in range(count + 1)]
    for begin, end in itertools.pairwise(cuts):
        yield all_[begin:end]


def _rows(
    clips: Sequence[Clip], runs: Mapping[str, Run], at_once: int, *, told: bool
) -> Iterator[Row]:
    ours = next(iter(runs.values()))
    for name, run in runs.items():
        p50, p95, p99 = (percentile(run.each, part) for part in (0.5, 0.95, 0.99))
        yield {
            "who": name,
            "language": ASKED[told],
            "at once": at_once,
            "x real time": round(run.audio / run.wall, 2),
            "p50 ms": round(p50 * 1000),
            "p95 ms": round(p95 * 1000),
            "p99 ms": round(p99 * 1000),
            "errors %": round(100 * rate(counted(clips, run.heard)), 2),
            "peak MB": "" if run.memory is None else round(run.memory),
            "failed": len(run.failed),
            "ours is x as fast": round(run.wall / ours.wall, 2),
            "our p50 is x": round(percentile(ours.each, 0.5) / p50, 2),
        }


def _verdicts(clips: Sequence[Clip], runs: Mapping[str, Run], *, told: bool) -> Iterator[Row]:
    """Ours against stock, where both are in the run."""
    ours = next((run for name, run in runs.items() if name in VIA.values()), None)
    stock = runs.get(STOCK)
    if ours is not None and stock is not None:
        yield from verdicts(clips, {OURS: ours, STOCK: stock}, told=told)


def _written(runs: Mapping[str, Run], at_once: int, *, told: bool) -> Iterator[dict[str, Any]]:
    for name, run in runs.items():
        yield {
            "who": name,
            "language": ASKED[told],
            "at once": at_once,
            "texts": {clip: heard.text for clip, heard in run.heard.items()},
            "failed": run.failed,
        }


def _section(clips: Sequence[Clip], rows: Sequence[Row], contest: Contest) -> Section:
    setup = contest.setup
    seconds = sum(clip.seconds for clip in clips)
    settings = "".join(f", {name}={value}" for name, value in setup.options.items())
    return Section(
        f"Speed: {len(clips)} clips, {seconds:.0f} s, model {setup.name}, {setup.compute} on"
        f" {setup.device}, {setup.replicas} x {setup.threads} threads{settings}",
        rows,
        "Each in a process of its own, in turns; all read the files' bytes. Errors: words, after"
        " Whisper's normaliser. Memory: the peaks so far of the process and of all that it started,"
        f" added up; over the bus and HTTP that is the caller too. Ours: {contest.names[0]}.",
    )
