"""Answer silence with nothing: a model asked to hear silence invents words."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bus_worker.plugin import Draft, stage


class Options(BaseModel):
    """What counts as silence."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    # Recordings of speech at 0.0004 exist; what is no speech, voice activity detection leaves out.
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0003
    """Root mean square below which a clip is silent, as it was sent (1 is full scale)."""


@stage(Options, needs=("samples",), version="1")
def silence(draft: Draft, options: Options) -> None:
    """End the walk with empty text and the warning `silent_audio` where nothing is to be heard."""
    assert draft.samples is not None  # noqa: S101 - `needs` says so
    gain = draft.extras.get("gain", 1.0)  # `normalize` raised it: judge what the caller sent
    level = _root_mean_square(draft.samples) / gain
    draft.note("level", round(level, 6))
    if level < options.threshold:
        draft.text, draft.segments = "", []
        draft.language = draft.language_probability = None
        draft.warn("silent_audio")
        draft.finish()


def _root_mean_square(samples: np.ndarray) -> float:
    if not len(samples):
        return 0.0
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
