"""What comes back over the wire, as plain data, and msgpack in and out.

Nothing here needs more than msgpack, so that importing the client stays cheap; what a worker
accepts is checked in `bus_worker.requests`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import msgpack

from bus_worker.errors import BadRequest, BusWorkerError, Failed, error_for_code

__all__ = [
    "MAX_CHUNKS",
    "MIN_CHUNK",
    "ModelInfo",
    "Segment",
    "Ticket",
    "Timings",
    "Transcript",
    "Word",
    "error_to_map",
    "map_to_error",
    "pack",
    "segment_to_map",
    "unpack",
    "unpack_hostile",
]


@dataclass(frozen=True, slots=True)
class Word:
    """One word. Times are seconds from the start of the audio."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as the model wrote it.

    Times are seconds from the start of the audio, two decimals; `seek` is the model window's
    start in frames of 10 ms. `confidence` is the average log-probability of the tokens.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    confidence: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: list[Word] | None = None

    @classmethod
    def from_map(cls, data: Mapping[str, Any]) -> Self:
        """A segment as it came off the wire."""
        words = data.get("words")
        known = _known(cls, data)
        known["words"] = None if words is None else [Word(**_known(Word, w)) for w in words]
        return cls(**known)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights answered. `revision` is a commit of the hub, or for a plain folder a hash of its files."""

    name: str
    revision: str | None = None


MIN_CHUNK = 4096
"""Bytes that the chunks of a ticket's audio have at least, on average: nobody gathers crumbs."""
MAX_CHUNKS = 1 << 17
"""Chunks that a ticket has at most: whoever erases its audio goes through them one by one.

That is 118 GB as we cut it, and the largest file of a job even where each chunk is as small as may be.
"""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Stands in a request for audio that was left on the bus: `sha256` is that of the whole, in hex."""

    id: str
    chunks: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds went, as the worker's monotonic clock saw them.

    `queue` is from the message's arrival to the first stage (fetching its audio included), `stages` each stage by name,
    `transcribe` all stages together, `total` from arrival to the answer.
    """

    queue: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    transcribe: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said.

    `language` is None where nothing was heard; `duration` is seconds of audio;
    `real_time_factor` is the worker's seconds per second of audio (below 1 is faster than speech).
    """

    request_id: str
    text: str
    language: str | None
    language_probability: float | None
    duration: float
    segments: list[Segment]
    model: ModelInfo
    timings: Timings
    real_time_factor: float
    worker_id: str
    cache_hit: bool = False
    cached_at: float | None = None
    cache_hit_at: float | None = None
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def from_map(cls, data: Mapping[str, Any]) -> Self:
        """A transcript as it came off the wire; keys that this version does not know are ignored.

        Raises:
            Failed: a key is missing or of the wrong kind.
        """
        try:
            known = _known(cls, data)
            known["segments"] = [Segment.from_map(s) for s in data["segments"]]
            known["model"] = ModelInfo(**_known(ModelInfo, data["model"]))
            known["timings"] = Timings(**_known(Timings, data["timings"]))
            return cls(**known)
        except (KeyError, TypeError, AttributeError) as exc:
            raise Failed(
                "the worker's reply is not a transcript; are client and worker of one version?"
            ) from exc

    def to_map(self) -> dict[str, Any]:
        """The transcript as plain maps and lists, without `words` where none were asked for."""
        return {
            **_fields(self),
            "segments": [segment_to_map(segment) for segment in self.segments],
            "model": _fields(self.model),
            "timings": _fields(self.timings),
        }


def segment_to_map(segment: Segment) -> dict[str, Any]:
    """One segment as a plain map, without `words` where none were asked for."""
    data = _fields(segment)
    if segment.words is None:
        del data["words"]
    else:
        data["words"] = [_fields(word) for word in segment.words]
    return data


def _fields(of: Any) -> dict[str, Any]:
    """A dataclass's fields as they are: `asdict` copies every token, and takes seven times as long."""
    return {f.name: getattr(of, f.name) for f in fields(of)}


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def error_to_map(error: BusWorkerError) -> dict[str, Any]:
    """An error as it goes over the wire."""
    return {
        "error": {
            "code": error.code,
            "message": error.message,
            "retry": error.retry,
            "details": error.details,
        }
    }


def map_to_error(data: Mapping[str, Any], *, status: int = 500) -> BusWorkerError:
    """The error that a reply's `error` map describes (its `Nats-Service-Error-Code` as status)."""
    details = data.get("details")
    return error_for_code(
        str(data.get("code", "failed")),
        str(data.get("message", "")),
        details if isinstance(details, dict) else {},
        status=status,
        retry=bool(data.get("retry", False)),
    )


def pack(data: Mapping[str, Any]) -> bytes:
    """A map as msgpack."""
    packed: bytes = msgpack.packb(data, use_bin_type=True)
    return packed


def unpack(payload: bytes) -> dict[str, Any]:
    """Msgpack as a map with text keys, from somebody we trust to be brief (see `unpack_hostile`).

    Msgpack-python bounds every length by the input's size, refuses depth over 1024 and keys that
    are not text; all of it is `ValueError`.

    Raises:
        BadRequest: not msgpack, or not a map.
    """
    try:
        data = msgpack.unpackb(payload, raw=False)
    except (ValueError, RecursionError) as exc:
        raise BadRequest("the message is not msgpack") from exc
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise BadRequest(
            f"the message must be a msgpack map with text keys, not {type(data).__name__}"
        )
    return data


def unpack_hostile(payload: bytes, most: int) -> dict[str, Any]:
    """As `unpack`, from a stranger: everything but byte strings takes `most` bytes together.

    8 MB of empty lists took 2.5 s of the event loop (measured); byte strings cost nothing.

    Raises:
        BadRequest: not msgpack, not a map with text keys, or too large besides its byte strings.
    """
    try:
        reader = msgpack.Unpacker(raw=False, max_buffer_size=max(1, len(payload)))
        reader.feed(payload)
        left, data = most, {}
        keys = reader.read_map_header()
        if keys > MAX_KEYS:
            raise BadRequest(f"the message's msgpack map has {keys} keys; no request has so many")
        for _ in range(keys):
            key, used = _plain(payload, reader, left)
            left -= used
            if not isinstance(key, str):
                raise BadRequest("the message must be a msgpack map with text keys")
            if payload[reader.tell()] in BIN:
                data[key] = reader.unpack()
            else:
                data[key], used = _plain(payload, reader, left)
                left -= used
    except (ValueError, IndexError, RecursionError, msgpack.exceptions.UnpackException) as exc:
        raise BadRequest("the message is not a msgpack map") from exc
    if reader.tell() != len(payload):
        raise BadRequest("the message is not one msgpack map: there are bytes behind its end")
    return data


MAX_KEYS = 16
BIN = frozenset({0xC4, 0xC5, 0xC6})
"""First bytes of msgpack's three kinds of byte string."""


def _plain(payload: bytes, reader: Any, left: int) -> tuple[Any, int]:
    """The next value, read from no more than `left` bytes, and how many it took."""
    at = reader.tell()
    small = msgpack.Unpacker(raw=False)
    small.feed(payload[at : at + left])
    try:
        value = small.unpack()
    except msgpack.OutOfData as exc:
        raise BadRequest(
            "the message is cut short, or too large besides its audio: not msgpack that is read here"
        ) from exc
    reader.skip()
    return value, small.tell()
