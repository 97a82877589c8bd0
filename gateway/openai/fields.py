"""The form fields of OpenAI's audio API: each honoured, refused by name, or answered with a warning."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bus_worker.errors import BadRequest
from bus_worker.requests import Options, refusal
from gateway.openai.chunking import PART, ServerVad, read_chunking
from gateway.openai.errors import refused
from gateway.openai.languages import LANGUAGES, WRITTEN

__all__ = [
    "Asked",
    "TranscriptionForm",
    "TranslationForm",
    "read_transcription",
    "read_translation",
]

Fields = Mapping[str, tuple[str, ...]]
ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]

LISTS = ("keywords", "languages", "timestamp_granularities")
"""Fields that may come more than once."""
NO_SPEAKERS = "this engine does not tell speakers apart"
ELSEWHERE = {
    "include": "this engine has no log-probabilities of single tokens; response_format=verbose_json"
    " has avg_logprob for each segment",
    "known_speaker_names": NO_SPEAKERS,
    "known_speaker_references": NO_SPEAKERS,
}
"""Fields that the API has and this engine cannot honour, with why."""
NAMED = {"hotwords": "keywords"}
"""Options of the bus that the API calls otherwise."""
REASONS = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}

F = TypeVar("F", bound="TranslationForm")


def _truth(text: str) -> bool | str:
    """`true` or `false` as the SDKs write them, in any case; not the other words that pydantic knows."""
    words = {"true": True, "false": False}
    return words.get(text.lower(), "neither")


class TranslationForm(BaseModel):
    """What `POST /v1/audio/translations` takes beside `file`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["whisper-1"])]
    """A model that a worker serves (`GET /v1/models`), or one of OpenAI's names for the default one."""
    prompt: str | None = None
    """Text that came before, for style and spelling."""
    response_format: ResponseFormat = "json"
    """How the answer is written."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """One sampling temperature; 0: raised in steps where decoding fails."""


class TranscriptionForm(TranslationForm):
    """What `POST /v1/audio/transcriptions` takes beside `file`."""

    chunking_strategy: Literal["auto"] | ServerVad | None = None
    """`auto`, or how speech is told from silence; not given: as the operator has set it."""
    keywords: list[str] = Field(default_factory=list)
    """Words to listen for."""
    language: str | None = None
    """ISO-639-1 code of the language spoken; detected when not given."""
    languages: list[str] = Field(default_factory=list)
    """Languages that may be spoken; one is taken as `language`, among several the engine detects freely."""
    stream: Annotated[bool, BeforeValidator(_truth)] = False
    """Answer with server-sent events while the audio is decoded; needs response_format json or text."""
    timestamp_granularities: list[Literal["word", "segment"]] = Field(default_factory=list)
    """What has times in verbose_json; not given: segments."""


KNOWN = {*TranscriptionForm.model_fields, *ELSEWHERE}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the bus takes it, and how the answer is to be written."""

    model: str
    response_format: ResponseFormat
    options: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    segments: bool = True
    """Whether verbose_json lists segments."""
    stream: bool = False
    warnings: tuple[str, ...] = ()
    """What was asked and is not done, a sentence each."""


def read_translation(fields: Fields) -> Asked:
    """A translation's fields.

    Raises:
        BadRequest: a field that is unknown, missing or wrong; `details` name it as `field`.
    """
    form = _form(TranslationForm, fields)
    return Asked(form.model, form.response_format, _options(form, task="translate"))


def read_transcription(fields: Fields) -> Asked:
    """A transcription's fields.

    Raises:
        BadRequest: as `read_translation`.
    """
    form = _form(TranscriptionForm, fields)
    if form.stream and form.response_format not in {"json", "text"}:
        raise refused(
            f"'response_format': {form.response_format} cannot be streamed; take json or text",
            "response_format",
            "unsupported_value",
        )
    words = "word" in form.timestamp_granularities and form.response_format == "verbose_json"
    vad = form.chunking_strategy
    language, warnings = _language(form)
    return Asked(
        form.model,
        form.response_format,
        _options(
            form,
            language=language,
            hotwords=form.keywords or None,
            word_timestamps=words or None,
            vad=None if vad is None else True,
        ),
        stages={"whisper": vad.options()} if isinstance(vad, ServerVad) and vad.options() else {},
        segments=not words or "segment" in form.timestamp_granularities,
        stream=form.stream,
        warnings=(*warnings, *_not_done(form)),
    )


def _language(form: TranscriptionForm) -> tuple[str | None, list[str]]:
    """The one language asked for, if it is one."""
    every = {_known_language(code, "languages") for code in form.languages}
    if form.language is not None:
        one = _known_language(form.language, "language")
        if every - {one}:
            raise refused("'languages': give either 'language' or 'languages'", "languages")
        return one, []
    if len(every) > 1:
        return None, ["languages: not limited to these, the language is detected among all"]
    return (every.pop() if every else None), []


def _known_language(given: str, param: str) -> str:
    code = given.strip().lower()
    code = WRITTEN.get(code, code)
    if code not in LANGUAGES:
        raise refused(
            f"'{param}': {given[:20]!r} is no ISO-639-1 code that Whisper knows, such as 'en'",
            param,
            "invalid_language_format",
        )
    return code


def _not_done(form: TranscriptionForm) -> Iterable[str]:
    """Sentences on what does not change the answer."""
    if form.timestamp_granularities and form.response_format != "verbose_json":
        yield "timestamp_granularities: no effect without response_format=verbose_json"
    vad = form.chunking_strategy
    if isinstance(vad, ServerVad) and vad.prefix_padding_ms is not None:
        yield "chunking_strategy.prefix_padding_ms: no effect, the padding is the engine's own"


def _options(form: TranslationForm, **more: Any) -> dict[str, Any]:
    """The options of the bus, checked here as the worker would."""
    asked = {
        "prompt": form.prompt,
        "temperature": form.temperature or None,  # 0 means the fallback, which None is on the bus
        **more,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    try:
        Options.model_validate(options)
    except ValidationError as exc:
        raise _wrong(exc) from exc
    return options


def _form(kind: type[F], fields: Fields) -> F:
    try:
        return kind.model_validate(_values(fields))
    except ValidationError as exc:
        raise _wrong(exc) from exc


def _values(fields: Fields) -> dict[str, Any]:
    """Text, lists of text and the chunking strategy; what was left empty counts as not given."""
    values: dict[str, Any] = {}
    vad: dict[str, str] = {}
    for name, given in fields.items():
        filled = [value for value in given if value.strip()]
        if filled and name in ELSEWHERE:
            why = f"'{name}' is not supported: {ELSEWHERE[name]}"
            raise refused(why, name, "unsupported_parameter")
        if name in LISTS:
            values[name] = filled
        elif len(filled) > 1:
            raise refused(f"'{name}' was sent {len(filled)} times", name)
        elif filled and name.startswith(PART):
            vad[name.removeprefix(PART).removesuffix("]")] = filled[0]
        elif filled or name not in KNOWN:
            values[name] = "".join(filled)
    if values.get("response_format") == "diarized_json":
        why = f"'response_format': no diarized_json, {NO_SPEAKERS}"
        raise refused(why, "response_format", "unsupported_value")
    chunking = read_chunking(values.pop("chunking_strategy", None), vad)
    return values if chunking is None else {**values, "chunking_strategy": chunking}


def _wrong(exc: ValidationError) -> BadRequest:
    """The first wrong field, as the API refuses it."""
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0])
    reason = REASONS.get(first["type"], "invalid_value")
    if name == "response_format":
        reason = "unsupported_value"
    (message,) = refusal(exc)
    if first["type"] == "missing":
        message = f"you must provide a {name} parameter"
    return refused(message.replace("'hotwords", "'keywords"), NAMED.get(name, name), reason)
