"""For plugin authors, tests and benchmarks: run one stage, and an engine that only pretends."""

import math
import random
import time
from typing import Any

from pydantic import BaseModel, Field

from bus_worker.messages import Segment
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft, Samples, Stage, stage
from bus_worker.settings import Settings, stage_options

__all__ = ["Pretend", "draft_of", "pretend", "run_stage", "segment"]


def draft_of(samples: Samples, **fields: Any) -> Draft:
    """A draft as it is after decoding."""
    return Draft(samples=samples, duration=len(samples) / 16_000, **fields)


async def run_stage(the_stage: Stage, draft: Draft, **options: Any) -> Draft:
    """Run one stage on a draft as the host would, its `open` included; returns the draft.

    The stage's needs are taken as met.
    """
    alone = Stage(**{**_fields(the_stage), "needs": ()})
    made = stage_options(alone.name, alone.options, Settings(), {})
    chosen = alone.options.model_validate({**made.model_dump(exclude_unset=True), **options})
    pipeline = Pipeline.order([alone.name], {alone.name: alone}, lambda _: chosen)
    async with pipeline.open() as opened:
        await opened.run(draft)
        await draft.settled()
    return draft


def _fields(of: Stage) -> dict[str, Any]:
    return {name: getattr(of, name) for name in Stage.__dataclass_fields__}


def segment(text: str, start: float = 0.0, end: float = 1.0, number: int = 0) -> Segment:
    """A segment with plausible scores."""
    return Segment(
        id=number, seek=0, start=start, end=end, text=text, tokens=[], confidence=-0.2,
        no_speech_prob=0.01, compression_ratio=1.1, temperature=0.0,
    )  # fmt: skip


class Pretend(BaseModel):
    """How long the pretended engine takes, and how it behaves meanwhile."""

    seconds: float = Field(0.1, ge=0)
    spread: float = Field(0.0, ge=0)
    """Sigma of a log-normal around the mean of `seconds`; 0: always the same."""
    stubborn: float = Field(0.0, ge=0)
    """Seconds in which a thread is blocked without looking up, as a hung engine does."""
    segments: int = Field(1, ge=1)


@stage(
    Pretend,
    gives=("segments", "text"),
    per_request=("seconds", "stubborn", "segments"),
)
def pretend(draft: Draft, options: Pretend) -> None:
    """Take an engine's time without hearing anything; the text tells the audio's size."""
    time.sleep(options.stubborn)
    seconds = options.seconds
    if options.spread:
        mu = math.log(seconds) - options.spread**2 / 2
        seconds = random.lognormvariate(mu, options.spread)
    for number in range(options.segments):
        end = time.monotonic() + seconds / options.segments
        while (left := end - time.monotonic()) > 0:
            draft.check()
            time.sleep(min(0.02, left))
        heard = segment(f" part {number}", number, number + 1, number)
        draft.segments.append(heard)
        draft.emit(heard)
    draft.text = (
        f"{len(draft.audio)} bytes" if draft.samples is None else f"{len(draft.samples)} samples"
    )
    draft.language = "en"
