"""Refuse clips that are too short or too long."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bus_worker.errors import AudioTooLong, AudioTooShort
from bus_worker.plugin import SAMPLE_RATE, Draft, stage


class Options(BaseModel):
    """How long a clip may be, in seconds; the operator's alone."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    min_duration: Annotated[float, Field(ge=0)] = 0.1
    """Seconds; a shorter clip is refused."""
    max_duration: Annotated[float, Field(gt=0)] | None = 30.0
    """Seconds; a longer clip is refused. None lifts the limit."""


@stage(Options, needs=("samples",), version="1")
async def limits(draft: Draft, options: Options) -> None:
    """Refuse audio outside the limits; the message gives both numbers."""
    assert draft.samples is not None  # noqa: S101 - `needs` says so
    seconds = len(draft.samples) / SAMPLE_RATE
    low, high = options.min_duration, options.max_duration
    if seconds < low:
        raise AudioTooShort(
            f"the audio is {seconds:.3g} s long; at least {low:g} s are needed",
            duration=seconds,
            minimum=low,
        )
    if high is not None and seconds > high:
        raise AudioTooLong(
            f"the audio is {seconds:.1f} s long; the limit is {high:g} s",
            duration=seconds,
            maximum=high,
        )
