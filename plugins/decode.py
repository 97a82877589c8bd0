"""Turn the caller's bytes into samples."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bus_worker import audio
from bus_worker.plugin import SAMPLE_RATE, Draft, stage


class Options(BaseModel):
    """What may come in, and how much of it; the operator's alone."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    formats: Annotated[tuple[audio.Format, ...], Field(min_length=1)] = audio.FORMATS
    """Formats that are allowed; the content decides which one it is, never the name."""
    max_duration: Annotated[float, Field(gt=0)] | None = 30.0
    """Seconds after which reading stops, whatever the file unpacks to; None reads all."""
    timeout: Annotated[float, Field(gt=0)] = audio.TIMEOUT
    """Seconds that reading one file may take."""


@contextlib.asynccontextmanager
async def ready(_: Options) -> AsyncIterator[None]:
    """Pay for slow first imports before the first caller comes."""
    await asyncio.to_thread(audio.warm_up)
    yield


@stage(Options, needs=("audio",), gives=("samples",), version="1", open=ready)
def decode(draft: Draft, options: Options, _: None) -> None:
    """Decode any allowed format to 16 kHz mono; refuse what is not audio."""
    draft.samples = audio.decode(
        draft.audio,
        formats=options.formats,
        max_duration=options.max_duration,
        timeout=options.timeout,
        check=draft.check,
    )
    draft.duration = len(draft.samples) / SAMPLE_RATE
