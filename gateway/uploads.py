"""A body read as a stream: multipart, or the audio itself; small audio is kept, large goes to the bus as it comes."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import multipart
from starlette.requests import Request
from starlette.types import Message

from bus_worker.client import KEPT, LeftAudio, TranscribeClient
from bus_worker.errors import BadRequest, Cancelled, RequestTimeout, TooLarge, Unavailable
from bus_worker.settings import Settings

__all__ = ["Upload", "receive", "too_large"]

FIELD = "file"
"""The part that holds the audio."""
BESIDES = 262_144
"""Bytes of a body beside its audio."""
MAX_FIELDS = 64
MAX_FIELD = 65_536
"""Bytes of one field."""
SILENT_FOR = 10.0
"""Seconds between two pieces of a body after which its sender counts as gone."""
BUS_BACK = 1.0
"""Seconds that an upload waits for a bus that is away."""
RAW = ("audio/", "video/", "application/octet-stream", "application/ogg", "binary/octet-stream")


@dataclass(frozen=True, slots=True)
class Upload:
    """What came: the audio as `client.transcribe` takes it, and every other field, its name without `[]`."""

    audio: LeftAudio
    size: int
    filename: str | None
    content_type: str | None
    fields: Mapping[str, tuple[str, ...]]

    @property
    def hint(self) -> str | None:
        """What its sender says the audio is: a media type, else the name's ending."""
        if self.content_type and self.content_type.startswith(("audio/", "video/")):
            return self.content_type[:100]
        return (self.filename or "").rpartition(".")[2][:100] or None


async def receive(
    request: Request, client: TranscribeClient, *, limit: int, kept: float = KEPT
) -> Upload:
    """Read an upload to its end; what of it lies on the bus stays there until the request is over.

    Args:
        limit: bytes that the audio may have.
        kept: seconds after which what lies on the bus is gone, erased or not.

    Raises:
        BadRequest: neither a form with one `file`, nor audio; or broken.
        TooLarge, RequestTimeout: larger, or slower, than is taken.
        Unavailable, Busy: there is nobody to give it to.
        Cancelled: the caller has left.
    """
    kind, options = _media_type(request.headers.get("content-type", ""))
    keep = _Keep(client, request.state.exits, limit, kept)
    for name, value in request.query_params.multi_items():
        keep.add(name, value)
    pace = _Pace.of(request.app.state.settings)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest("send the body as it is, without a Content-Encoding")
    if kind == "multipart/form-data":
        pieces = _pieces(request, limit, limit + BESIDES, pace)
        await keep.form(pieces, options.get("boundary", ""))
    elif kind.startswith(RAW):
        await keep.audio(_pieces(request, limit, limit, pace), None, kind)
    else:
        raise BadRequest(
            "send multipart/form-data with the audio as 'file', or the audio itself"
            " with its media type (audio/wav, audio/webm, …)"
        )
    return keep.upload()


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    kind, options = multipart.parse_options_header(header)  # type: ignore[no-untyped-call]
    return kind.lower(), options


class _Keep:
    """What has come of an upload so far."""

    def __init__(
        self, client: TranscribeClient, exits: AsyncExitStack, limit: int, kept: float
    ) -> None:
        self._client = client
        self._exits = exits
        self._limit = limit
        self._kept = kept
        self._fields: dict[str, tuple[str, ...]] = {}
        self._file: tuple[LeftAudio, str | None, str | None] | None = None

    def add(self, name: str, value: str) -> None:
        """One more field."""
        plain = name.removesuffix("[]")
        self._fields[plain] = (*self._fields.get(plain, ()), value)

    def upload(self) -> Upload:
        """The whole.

        Raises:
            BadRequest: there was no audio in it.
        """
        if self._file is None:
            raise BadRequest(f"there is no '{FIELD}' in the form", field=FIELD)
        audio, name, kind = self._file
        if not audio.size:
            raise BadRequest(f"'{FIELD}' is empty", field=FIELD)
        return Upload(audio, audio.size, name, kind, MappingProxyType(self._fields))

    async def audio(
        self, pieces: AsyncGenerator[bytes], name: str | None, kind: str | None
    ) -> None:
        """The audio, to its end."""
        await _bus_there(self._client)
        async with aclosing(_counted(pieces, self._limit)) as counted:
            leaving = self._client.leave(counted, kept=self._kept)
            left = await self._exits.enter_async_context(leaving)
        self._file = (left, name, kind)

    async def form(self, pieces: AsyncGenerator[bytes], boundary: str) -> None:
        """Every part of a form."""
        try:
            async with aclosing(pieces), aclosing(_events(pieces, boundary)) as events:
                async for part in events:
                    if isinstance(part, multipart.MultipartSegment):
                        await self._part(part, _payload(events))
        except multipart.MultipartError as exc:
            raise BadRequest(f"the form cannot be read: {str(exc)[:100]}") from exc

    async def _part(self, part: multipart.MultipartSegment, payload: AsyncGenerator[bytes]) -> None:
        name = str(part.name or "")[:100]
        if name != FIELD:
            if part.filename is not None:
                raise BadRequest(f"{name!r} is a file; the audio goes in '{FIELD}'", field=name)
            self.add(name, await _text(name, payload))
        elif part.filename is None and part.content_type is None:
            raise BadRequest(
                f"'{FIELD}' is text, not a file; with curl write -F {FIELD}=@hello.wav", field=FIELD
            )
        elif self._file is not None:
            raise BadRequest(f"'{FIELD}' came twice", field=FIELD)
        else:
            await self.audio(payload, part.filename, part.content_type)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast a body must come: `size` bytes in `seconds`, and more of them in as much more time."""

    seconds: float
    size: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.upload_timeout, settings.max_file_size)

    def until(self, came: int) -> float:
        """Seconds from the body's beginning in which more must come, when so much has."""
        return self.seconds * max(1.0, came / self.size)


async def _pieces(request: Request, limit: int, most: int, pace: _Pace) -> AsyncGenerator[bytes]:
    """The body as it comes, of `most` bytes at most."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large(limit)
    began = time.monotonic()
    came, more = 0, True
    while more:
        message = await _message(request, began + pace.until(came))
        if message["type"] == "http.disconnect":
            raise Cancelled("the caller has hung up")
        more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        came += len(piece)
        if came > most:
            raise too_large(limit)
        if piece:
            yield piece


async def _message(request: Request, until: float) -> Message:
    left = until - time.monotonic()
    try:
        async with asyncio.timeout(max(0.0, min(left, SILENT_FOR))):
            return await request.receive()
    except TimeoutError:
        raise RequestTimeout(
            f"nothing more of the body came for {SILENT_FOR:g} s"
            if left > SILENT_FOR
            else "the body took too long to come"
        ) from None


async def _events(
    pieces: AsyncGenerator[bytes], boundary: str
) -> AsyncGenerator[multipart.MultipartSegment | bytes | None]:
    """A form's parts: each begins with its head and ends with None."""
    with multipart.PushMultipartParser(boundary, max_segment_count=MAX_FIELDS) as parser:
        async for piece in pieces:
            for event in parser.parse(piece):
                yield event


async def _payload(
    events: AsyncGenerator[multipart.MultipartSegment | bytes | None],
) -> AsyncGenerator[bytes]:
    """The rest of the part that has begun."""
    async for event in events:
        if not isinstance(event, bytes | bytearray):
            return
        yield bytes(event)


async def _counted(pieces: AsyncGenerator[bytes], limit: int) -> AsyncGenerator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        yield piece


async def _text(name: str, payload: AsyncGenerator[bytes]) -> str:
    """A field's value."""
    value = b""
    async for piece in payload:
        value += piece
        if len(value) > MAX_FIELD:
            raise BadRequest(f"{name!r} has more than {MAX_FIELD} bytes", field=name)
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise BadRequest(f"{name!r} is not UTF-8 text", field=name) from exc


async def _bus_there(client: TranscribeClient) -> None:
    """Wait a moment for a bus that is away: connections come back in less.

    Raises:
        Unavailable: it stays away.
    """
    until = time.monotonic() + BUS_BACK
    while not client.connected:
        if time.monotonic() > until:
            raise Unavailable("the bus is away; try again in a while")
        await asyncio.sleep(0.02)


def too_large(limit: int) -> TooLarge:
    """The refusal of what has more bytes than that."""
    return TooLarge(f"the audio has more than the {limit} bytes that are taken", maximum=limit)
