"""Raise quiet clips, lower overdriven ones; leave the others as they are."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bus_worker.plugin import Draft, stage


class Options(BaseModel):
    """How loud."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    # Not lower: a caller may choose it, and should not make speech too quiet to be heard.
    peak: Annotated[float, Field(ge=0.01, le=1)] = 1.0
    """The loudest sample of a raised clip; 1 is full scale."""
    # Whisper's features move with the level: what is loud enough is heard best as it was recorded.
    quiet: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A clip whose loudest sample is below this is raised, one over full scale lowered; 1: every clip is scaled."""


@stage(
    Options,
    needs=("samples",),
    gives=("samples", "gain"),
    version="2",
    per_request=("peak", "quiet"),
)
def normalize(draft: Draft, options: Options) -> None:
    """Scale a clip that is too quiet or too loud so that its loudest sample reaches the peak.

    `extras["gain"]` tells later stages by how much, so that `silence` can judge what was sent.
    """
    assert draft.samples is not None  # noqa: S101 - `needs` says so
    draft.extras.setdefault("gain", 1.0)
    loudest = float(np.abs(draft.samples).max(initial=0.0))
    if not 0 < loudest < float("inf"):  # digital silence has no peak (nor has NaN, which is false)
        return
    if options.quiet <= loudest <= 1 and options.quiet < 1:
        return
    gain = options.peak / loudest
    # Divided first: the gain of a very quiet clip may be more than float32 can hold.
    draft.samples = draft.samples / np.float32(loudest) * np.float32(options.peak)
    draft.extras["gain"] *= gain
    draft.note("gain", round(gain, 3))
