"""What a caller may ask: one msgpack map, checked strictly; every refusal names the field."""

from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus_worker.errors import BadRequest
from bus_worker.messages import MAX_CHUNKS, MIN_CHUNK, Ticket, unpack_hostile

__all__ = [
    "MAX_WINDOWS",
    "Claim",
    "JobRequest",
    "LookupRequest",
    "Options",
    "TranscribeRequest",
    "WindowRequest",
    "read_ends",
    "read_job",
    "read_lookup",
    "read_request",
    "read_window",
    "refusal",
]

MAX_PROMPT = 4000
"""Characters of a prompt; the model itself reads at most its last 223 tokens."""
MAX_HOTWORDS = 200
MAX_BESIDES = 65_536
"""Bytes of a request besides its audio."""
MAX_WINDOWS = 100_000
"""Of one recording: its record has a bit for each, up to the highest number that somebody names."""
MAX_SCALE = 3.41e38
"""A little more than a 32-bit sample can be."""
MAX_FIELDS = 32
"""Keys of a map inside a request: pydantic takes 28 us of the event loop for every one it does not know."""


class Options(BaseModel):
    """What a caller may choose; None leaves it to the worker's own settings."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False,
        use_attribute_docstrings=True,
    )  # fmt: skip

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None = None
    """ISO 639-1 code as Whisper knows it (`en`, `de`, `yue`); detected when not given."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """`translate` writes English whatever was spoken."""
    prompt: Annotated[str, Field(max_length=MAX_PROMPT)] | None = None
    """Text that came before, for style and spelling."""
    hotwords: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=MAX_HOTWORDS)
    ] = Field(default_factory=list)
    """Words to listen for."""
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    """One sampling temperature; not given: 0, raised in steps where decoding fails."""
    beam_size: Annotated[int, Field(ge=1, le=10)] | None = None
    """Readings kept in mind while decoding; more is slower, and a little better."""
    word_timestamps: bool = False
    """Time each word."""
    vad: bool | None = None
    """Skip what is not speech before decoding."""


class Claim(BaseModel):
    """A ticket for audio that was left on the bus (see `bus_worker.claim_check`)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    chunks: Annotated[int, Field(ge=1, le=MAX_CHUNKS)]
    size: Annotated[int, Field(ge=1, lt=1 << 53)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def ticket(self) -> Ticket:
        """As plain data."""
        return Ticket(self.id, self.chunks, self.size, self.sha256)


class TranscribeRequest(BaseModel):
    """One request as it came over the bus."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    audio: bytes = b""
    claim: Claim | None = None
    """Instead of `audio`."""
    format: Annotated[str, Field(max_length=100)] | None = None
    """An extension or a media type; a hint, the content decides."""
    options: Options = Options()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of stages that allow them per request: {stage: {option: value}}."""
    cache: bool = True
    stream: bool = False


class JobRequest(TranscribeRequest):
    """What a job asks for: what a request does, and where the result is to be told."""

    reply_to: Annotated[str, Field(max_length=200)] | None = None
    """A subject under `_INBOX.` or `stt.results.` for the transcript or the error."""
    webhook: Annotated[str, Field(max_length=2000)] | None = None
    """An https address that is told of the end."""


class WindowRequest(BaseModel):
    """A piece of a long recording, on its way from the worker that cut it to the one that hears it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    job_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    number: Annotated[int, Field(ge=0, lt=MAX_WINDOWS)]
    start: Annotated[int, Field(ge=0)]
    """The sample at which it begins in the recording."""
    pcm: bytes
    """16-bit little-endian samples at 16 kHz."""
    scale: Annotated[float, Field(gt=0, lt=MAX_SCALE)]
    """What full scale means."""
    request_id: Annotated[str, Field(max_length=200)] = ""
    options: Options = Options()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)


T = TypeVar("T", bound=TranscribeRequest)


class LookupRequest(BaseModel):
    """The question whether an answer is known, without the audio."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the audio's bytes."""
    format: Annotated[str, Field(max_length=100)] | None = None
    options: Options = Options()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stream: bool = False


def read_lookup(payload: bytes) -> LookupRequest:
    """The question in a message.

    Raises:
        BadRequest: as `read_request`.
    """
    try:
        return LookupRequest.model_validate(_few(unpack_hostile(payload, MAX_BESIDES)))
    except ValidationError as exc:
        raise BadRequest(*refusal(exc)) from exc


def read_request(payload: bytes) -> TranscribeRequest:
    """The request in a message.

    Raises:
        BadRequest: not msgpack, an unknown or ill-typed field; the message names each.
    """
    return _read(TranscribeRequest, payload)


def read_job(payload: bytes) -> JobRequest:
    """The job in a message.

    Raises:
        BadRequest: as `read_request`.
    """
    return _read(JobRequest, payload)


def read_ends(payload: bytes) -> dict[str, Any]:
    """What a job's message says of its end, as far as it is well-formed, whatever else is wrong with it."""
    ends = dict[str, Any](dict.fromkeys(("reply_to", "webhook", "claim")))
    try:
        data = unpack_hostile(payload, MAX_BESIDES)
    except BadRequest:
        return ends
    for name in ends:
        with suppress(ValidationError, BadRequest):
            asked = JobRequest.model_validate(_few({name: data.get(name)}))
            if asked.claim is not None:
                _check_chunks(asked.claim)
            ends[name] = asked.model_dump()[name]
    return ends


def read_window(payload: bytes) -> WindowRequest:
    """The window in a message.

    Raises:
        BadRequest: it is none.
    """
    try:
        return WindowRequest.model_validate(_few(unpack_hostile(payload, MAX_BESIDES)))
    except ValidationError as exc:
        raise BadRequest(*refusal(exc)) from exc


def _read(kind: type[T], payload: bytes) -> T:
    data = _few(unpack_hostile(payload, MAX_BESIDES))
    if ("audio" in data) == (data.get("claim") is not None):
        raise BadRequest("a request has either 'audio' or 'claim'")
    try:
        request = kind.model_validate(data)
    except ValidationError as exc:
        raise BadRequest(*refusal(exc)) from exc
    if request.claim is not None:
        _check_chunks(request.claim)
    return request


def _check_chunks(claim: Claim) -> None:
    if claim.chunks > (most := 1 + claim.size // MIN_CHUNK):
        raise BadRequest(f"'claim.chunks': {claim.size} bytes have {most} chunks at most")


def _few(data: dict[str, Any]) -> dict[str, Any]:
    """The message as it is (`unpack_hostile` has counted its own keys).

    Raises:
        BadRequest: a map in it that is checked key by key has more keys than any caller needs.
    """
    for name in ("options", "claim", "stages"):
        value = data.get(name)
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise BadRequest(f"{name!r} has {MAX_FIELDS} fields at most, not {len(value)}")
    return data


def refusal(exc: ValidationError, prefix: str = "") -> tuple[str]:
    """One sentence that names each wrong field (at most three); never echoes a value."""
    parts = []
    for error in exc.errors(include_url=False, include_context=False, include_input=False)[:3]:
        where = ".".join(_escaped(part) for part in error["loc"] if part != "[key]")
        if error["type"] == "extra_forbidden":
            parts.append(f"unknown field '{prefix}{where}'")
        else:
            parts.append(f"'{prefix}{where}': {error['msg'][:1].lower()}{error['msg'][1:]}")
    return ("; ".join(parts),)


def _escaped(part: str | int) -> str:
    """A caller's key for a log and a terminal: what does not print is written as an escape."""
    return repr(str(part)[:60])[1:-1]
