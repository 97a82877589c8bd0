"""Turn the volume up or down."""

from pydantic import BaseModel

from bus_worker.plugin import Draft, stage


class Options(BaseModel):
    gain: float = 1.0


@stage(Options, needs=("samples",), gives=("samples",), version="1", per_request=("gain",))
async def gain(draft: Draft, options: Options) -> None:
    """Scale the samples."""
    draft.samples = draft.samples * options.gain
