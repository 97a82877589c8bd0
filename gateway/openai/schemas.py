"""The bodies that OpenAI's audio API answers with, as models: what is sent and what OpenAPI says are one."""

from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "Delta",
    "Done",
    "Envelope",
    "Fault",
    "Language",
    "Model",
    "ModelList",
    "Seconds",
    "Transcription",
    "Translation",
    "VerboseSegment",
    "VerboseTranscription",
    "VerboseTranslation",
    "VerboseWord",
]


class Language(BaseModel):
    """A language that was heard."""

    code: str


class Seconds(BaseModel):
    """How much audio was heard."""

    type: Literal["duration"] = "duration"
    seconds: int = Field(ge=0, description="Seconds of audio, rounded up.")


class Transcription(BaseModel):
    """The answer in `json`."""

    text: str
    languages: list[Language]
    usage: Seconds


class Translation(BaseModel):
    """A translation in `json`."""

    text: str


class VerboseSegment(BaseModel):
    """A stretch of speech."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseWord(BaseModel):
    """One word."""

    word: str
    start: float
    end: float


class VerboseTranslation(BaseModel):
    """A translation in `verbose_json`."""

    task: Literal["transcribe", "translate"]
    language: str = Field(description="Full English name, in lower case.")
    duration: float
    text: str
    segments: list[VerboseSegment] | None = None


class VerboseTranscription(VerboseTranslation):
    """The answer in `verbose_json`."""

    words: list[VerboseWord] | None = None
    usage: Seconds


class Delta(BaseModel):
    """An event: what the last utterance adds to the text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class Done(BaseModel):
    """The last event: the whole text."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    languages: list[Language]


class Model(BaseModel):
    """A model that answers."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Not known here, so 0.")
    owned_by: str = "bus-worker"


class ModelList(BaseModel):
    """The models that answer."""

    object: Literal["list"] = "list"
    data: list[Model]


class Fault(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(BaseModel):
    """An error's body."""

    error: Fault
