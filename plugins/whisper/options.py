"""What an operator may set for the whisper stage (`WHISPER__…`), with what each knob does."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PER_REQUEST = ("vad_threshold", "vad_min_silence_ms", "condition_on_previous_text")
"""What a caller may set too: nothing here makes one request dearer than another."""


class Options(BaseModel):
    """Knobs of the model: which weights, where they run, how they decode."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    model: str = Field("base", min_length=1)
    """Name (`base`, `large-v3`, `org/repo`) or folder of the model."""
    model_name: str | None = None
    """Name to serve it under; unset: its own, or the folder's."""
    model_dir: Path | None = None
    """Where models are kept; unset: the user's cache folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; `auto` takes a GPU when there is one."""
    compute_type: str = "int8"
    """Arithmetic: `int8`, `int8_float16`, `float16`, `bfloat16`, `float32`; what the device can do."""
    replicas: int | None = Field(None, ge=1, le=64)
    """Clips decoded at once on one set of weights; unset: cores // threads, on a GPU 1."""
    threads: int = Field(1, ge=1, le=64)
    """CPU threads of one replica; more replicas of one thread each beat fewer of more."""
    batch: int = Field(1, ge=1, le=64)
    """Clips that one replica decodes in one go when they wait for it."""

    short_context: bool = True
    """Encode a window's own length and some silence, not 30 s; doubtful text is tried again with more."""
    beam_size: int = Field(5, ge=1, le=10)
    """Hypotheses kept while decoding, where the request does not say."""
    default_language: str = Field("en", pattern=r"^[a-z]{2,3}$")
    """Language assumed when detection is unsure."""
    language_threshold: float = Field(0.5, ge=0, le=1)
    """Probability below which detection is unsure."""

    vad: bool = True
    """Leave out what is not speech before decoding, where the request does not say."""
    vad_threshold: float = Field(0.5, gt=0, lt=1)
    """Probability above which a moment counts as speech."""
    vad_min_silence_ms: int = Field(500, ge=50, le=10_000)
    """Silence that ends a stretch of speech."""

    condition_on_previous_text: bool = False
    """Show the decoder what it wrote for the window before; smoother, but errors repeat."""
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (
        0.0, 0.2, 0.4, 0.6, 0.8, 1.0,
    )  # fmt: skip
    """Tried in turn until decoding is good enough, where the request does not say."""
    compression_ratio_threshold: float = Field(2.4, gt=0)
    """Text that compresses better than this repeats itself: try the next temperature."""
    log_prob_threshold: float = Field(-1.0, le=0)
    """Average log-probability below which decoding failed: try the next temperature."""
    no_speech_threshold: float = Field(0.6, ge=0, le=1)
    """Probability of no speech above which a window that failed is taken as silent."""
