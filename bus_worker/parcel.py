"""How a call's audio travels: inside its message, or left on the bus with a ticket in its place."""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from bus_worker.claim_check import KEPT, ClaimCheck, Deposit, NoStream
from bus_worker.errors import Busy, TooLarge, Unavailable
from bus_worker.messages import Ticket, pack

__all__ = ["LeftAudio", "Parcel", "leave"]

INLINE = 700_000
"""Bytes of audio that go inside the message: above it a stream is kinder to everybody else's messages."""
SMALL = 64_000
"""Bytes of audio that are sent again as cheaply as a ticket is made."""
HASHED_HERE = 512 * 1024
"""Bytes hashed on the event loop; more are hashed in a thread."""
AROUND = 32
"""Bytes that the key `audio` takes around its own."""
BESIDES = 16_384
"""Bytes kept for what is asked, while that is not known yet."""


@dataclass(frozen=True, slots=True)
class LeftAudio:
    """A whole clip: small, it is here; large, it lies on the bus and this is its ticket."""

    here: bytes | None = None
    ticket: Ticket | None = None
    deposit: Deposit = field(default_factory=Deposit)
    """What of it lies on the bus, as long as it is its sender's to erase."""

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.ticket.size if self.ticket else len(self.here or b"")


class Parcel:
    """A request's message, made once; whatever it left on the bus is known by `deposit`."""

    def __init__(
        self, body: Mapping[str, Any], audio: bytes | AsyncIterable[bytes] | LeftAudio
    ) -> None:
        """Args: audio is the whole, or brings it piece by piece; what is left already stays its owner's."""
        self._body = body
        self._audio = audio
        self._message: bytes | None = None
        self._inline: bytes | None = None
        self._sha256: str | None = None
        self.begun = False
        self.deposit = Deposit()

    @property
    def made(self) -> bool:
        """Whether the message is ready to go."""
        return self._message is not None

    async def message(self, checks: ClaimCheck, *, lean: bool = False) -> bytes:
        """The request as it goes out.

        Args:
            lean: it was refused before; better leave the audio on the bus than send it once more.

        Raises:
            TooLarge: no message on this bus is as large, and it keeps no large audio.
            Busy, Unavailable: it does, but not now.
        """
        self.begun = True
        if self._message is None:
            self._message = await self._first(checks)
        elif lean and self._inline is not None and len(self._inline) > SMALL:
            audio, self._inline = self._inline, None
            with suppress(Busy, Unavailable):  # then as it was
                self._message = self._by(await checks.put(self.deposit, audio))
        return self._message

    async def question(self) -> dict[str, Any] | None:
        """The request with its audio's hash in the audio's place; None where no known answer is wanted."""
        if not self._body.get("cache", True):
            return None
        if self._sha256 is None and self._inline is not None:
            self._sha256 = await _hash(self._inline)
        if self._sha256 is None:
            return None
        asked = {key: value for key, value in self._body.items() if key != "cache"}
        return {**asked, "sha256": self._sha256}

    async def _first(self, checks: ClaimCheck) -> bytes:
        left = self._audio
        if not isinstance(left, LeftAudio):
            room = checks.largest - len(pack(self._body)) - AROUND
            left = await leave(left, checks, self.deposit, room)
        return self._by(left.ticket) if left.ticket else self._whole(left.here or b"")

    def _whole(self, audio: bytes) -> bytes:
        self._inline = audio
        return pack({**self._body, "audio": audio})

    def _by(self, ticket: Ticket) -> bytes:
        self._sha256 = ticket.sha256
        return pack({**self._body, "claim": asdict(ticket)})


async def leave(
    audio: bytes | AsyncIterable[bytes],
    checks: ClaimCheck,
    deposit: Deposit,
    room: int | None = None,
    kept: float = KEPT,
) -> LeftAudio:
    """Read a clip to its end: kept if it is small, else left on the bus as it comes.

    Args:
        deposit: notes what is left.
        room: bytes that its message would take.
        kept: seconds after which what was left is gone, erased or not.

    Raises:
        TooLarge: no message on this bus is as large, and it keeps no large audio.
        Busy, Unavailable: it does, but not now.
    """
    room = checks.largest - BESIDES if room is None else room
    head, rest = await _begin(audio, checks.chunk)
    if rest is None and len(head) <= min(INLINE, room):
        return LeftAudio(here=head)
    try:
        return LeftAudio(ticket=await checks.put(deposit, head, rest, kept=kept), deposit=deposit)
    except (Busy, Unavailable) as why:
        if rest is not None:
            if deposit.chunks > 1:
                raise  # its beginning is out of our hands
            head, rest = await _read(rest, head, room + 1)
        if len(head) <= room:
            return LeftAudio(here=head)
        if isinstance(why, NoStream):
            raise TooLarge(
                f"the audio has {'' if rest is None else 'over '}{len(head)} bytes, a message on this"
                f" bus takes {room}: enable jetstream on nats-server and run `bus-worker setup`,"
                " or raise max_payload",
                size=len(head),
                maximum=room,
            ) from why
        raise


async def _hash(audio: bytes) -> str:
    if len(audio) <= HASHED_HERE:
        return hashlib.sha256(audio).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, audio)).hexdigest()


async def _begin(
    audio: bytes | AsyncIterable[bytes], enough: int
) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """The audio, or so much of it and where the rest comes from."""
    if isinstance(audio, bytes):
        return audio, None
    return await _read(aiter(audio), b"", enough)


async def _read(
    source: AsyncIterator[bytes], begun: bytes, enough: int
) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """What was begun, read on until it is enough; None for the source where it has ended."""
    read = bytearray(begun)
    while len(read) < enough:
        try:
            read += await anext(source)
        except StopAsyncIteration:
            return bytes(read), None
    return bytes(read), source
