"""Hears what was said: faster-whisper, loaded once, with voice activity detection and streaming."""

from bus_worker.plugin import Draft, stage
from plugins.whisper.engine import Engine, open_engine
from plugins.whisper.options import PER_REQUEST, Options

__all__ = ["Engine", "Options", "whisper"]


@stage(
    Options,
    needs=("samples",),
    gives=("segments",),
    version="2",
    per_request=PER_REQUEST,
    open=open_engine,
)
async def whisper(draft: Draft, options: Options, engine: Engine) -> None:
    """Write down what is said in the samples, in segments with times and scores."""
    draft.model = engine.model
    heard = await engine.hear(draft, options)
    draft.segments = heard.segments
    if heard.language is None:
        draft.warn("no_speech")
        return
    draft.language = heard.language.code
    draft.language_probability = round(heard.language.probability, 4)
    if not heard.language.sure:
        draft.warn("language_uncertain")
