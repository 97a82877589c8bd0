"""Audio too large for a message: left in a stream in chunks, fetched with a ticket, verified.

The stream keeps one message a subject and refuses when it is full, so that nobody's live audio is
ever pushed out; whoever left a claim overwrites it with nothing when it is no longer needed, which
takes no more rights than leaving it did, and age takes what was forgotten.
"""

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from nats.aio.client import Client

from bus_worker.bus import HEADROOM, Forbidden, bus_errors
from bus_worker.errors import BadRequest, BusWorkerError, Busy, ClaimExpired, Unavailable
from bus_worker.jetstream import ANSWER_LIMIT, JetStream, Kept, NoStream, kept_for
from bus_worker.messages import MAX_CHUNKS, MIN_CHUNK, Ticket
from bus_worker.subjects import Subjects

__all__ = ["KEPT", "KEPT_FOR_JOBS", "ClaimCheck", "Deposit", "NoStream"]

CHUNK = 900_000
AT_ONCE = 4
"""Chunks under way at once, in either direction."""
KEPT = 15 * 60.0
"""Seconds after which audio that nobody erased is gone."""
KEPT_FOR_JOBS = 7 * 86_400.0
"""The same for audio of jobs, which may wait for days, and be looked at when they have failed."""
PUT_LIMIT = 10.0
"""Seconds in which the bus must have taken a chunk."""
FETCH_LIMIT, PER_MEGABYTE = 10.0, 1.0
"""Seconds in which the whole must be there, and those that each megabyte adds."""
STREAM_BACK = 3.0
"""Seconds that a stream may be away for: its server has just started."""
ABSENT_FOR = 10.0
"""Seconds that "there is no such stream" is believed."""
NOBODYS = "0" * 32


@dataclass(slots=True)
class Deposit:
    """What was left on the bus for one call: under which id, and how many chunks at most."""

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    chunks: int = 0

    def hand_over(self) -> None:
        """From now on somebody else erases it."""
        self.chunks = 0


class ClaimCheck:
    """Leaves audio on the bus, and fetches it."""

    def __init__(self, nc: Client, names: Subjects) -> None:
        self._nc = nc
        self._names = names
        self._js = JetStream(nc)
        self._absent_at = float("-inf")

    @property
    def chunk(self) -> int:
        """Bytes of one chunk on this bus."""
        return max(MIN_CHUNK, min(CHUNK, self.largest))

    @property
    def largest(self) -> int:
        """Bytes that one message takes on this bus."""
        return int(self._nc.max_payload - HEADROOM)

    async def ready(self) -> bool:
        """Whether the stream is there to fetch from.

        Raises:
            Forbidden: this user may not even look.
        """
        try:
            nothing = await self._read(NOBODYS, 0, ANSWER_LIMIT)
        except Forbidden:
            raise
        except Unavailable:
            return False
        return nothing is None

    async def put(
        self,
        deposit: Deposit,
        head: bytes,
        rest: AsyncIterator[bytes] | None = None,
        *,
        kept: float = KEPT,
    ) -> Ticket:
        """Leave audio on the bus: `head`, then what `rest` brings, a few chunks in memory at a time.

        Nothing is taken from `rest` before the first chunk is safe.

        Args:
            kept: seconds after which it is gone, erased or not.

        Raises:
            NoStream: the bus keeps no large audio.
            Busy: no room for it now.
            Unavailable: the bus did not take it in time.
        """
        if time.monotonic() - self._absent_at < ABSENT_FOR:
            raise NoStream
        digest, count, size = hashlib.sha256(), 0, 0
        sending: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(_cut(head, rest, self.chunk)) as chunks:
                async for chunk in chunks:
                    subject = self._names.claim(deposit.id, count)
                    back = STREAM_BACK if count else 0.0  # it was there for the first
                    count, size = count + 1, size + len(chunk)
                    deposit.chunks = max(deposit.chunks, count)
                    sending.add(
                        asyncio.create_task(self._leave(subject, chunk, kept, back), name="chunk")
                    )
                    await asyncio.to_thread(digest.update, chunk)
                    await _fewer(sending, 1 if count == 1 else AT_ONCE)
            await _fewer(sending, 1)
        except NoStream:
            self._absent_at = time.monotonic()
            raise
        finally:
            await _ended(sending)
        return Ticket(deposit.id, count, size, digest.hexdigest())

    async def erase(self, deposit: Deposit) -> None:
        """Put nothing in the place of each chunk; without a connection age must do it.

        A deposit may come from a record that anybody wrote: no more is erased than a ticket can have.
        """
        most = min(deposit.chunks, MAX_CHUNKS) if self._nc.is_connected else 0
        with suppress(BusWorkerError), bus_errors():
            for number in range(most):
                subject = self._names.claim(deposit.id, number)
                await self._nc.publish(subject, b"", headers=kept_for(1))

    async def fetch(self, ticket: Ticket) -> bytes:
        """The audio that a ticket stands for.

        Raises:
            ClaimExpired: it is gone, or part of it.
            BadRequest: it is not what the ticket says.
            Unavailable: the bus did not bring it in time.
        """
        parts: list[bytes] = []
        async with aclosing(self._chunks(ticket)) as chunks:
            async for chunk in chunks:
                parts.append(chunk)  # noqa: PERF401 - closed where it fails
        digest = await asyncio.to_thread(_hashed, parts)
        _check(ticket, sum(map(len, parts)), digest)
        return await asyncio.to_thread(b"".join, parts)

    async def fetch_into(self, ticket: Ticket, file: BinaryIO) -> None:
        """Write the audio that a ticket stands for to a file, a few chunks in memory at a time.

        Raises:
            ClaimExpired, BadRequest, Unavailable: as `fetch`.
            OSError: the file cannot be written.
        """
        digest, size = hashlib.sha256(), 0

        def keep(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async with aclosing(self._chunks(ticket)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                await asyncio.to_thread(keep, chunk)
        _check(ticket, size, digest.hexdigest())

    async def _chunks(self, ticket: Ticket) -> AsyncGenerator[bytes]:
        """The chunks in order, the next ones under way meanwhile."""
        came, asked = 0, 0
        coming: deque[asyncio.Task[bytes]] = deque()
        limit = FETCH_LIMIT + PER_MEGABYTE * ticket.size / 1_000_000
        until = time.monotonic() + limit
        try:
            while asked < ticket.chunks or coming:
                while asked < ticket.chunks and len(coming) < AT_ONCE:
                    coming.append(asyncio.create_task(self._chunk(ticket.id, asked), name="fetch"))
                    asked += 1
                try:
                    async with asyncio.timeout(until - time.monotonic()):
                        chunk = await coming[0]
                except TimeoutError:
                    raise Unavailable(
                        f"the audio did not come from the bus in {limit:.0f} s"
                    ) from None
                coming.popleft()
                came += len(chunk)
                if came > ticket.size:
                    raise BadRequest(
                        "'claim.size': the audio on the bus is larger than its ticket says"
                    )
                yield chunk
        finally:
            await _ended(coming)

    async def _chunk(self, claim_id: str, number: int) -> bytes:
        """One chunk; a stream that is not there may be a moment behind its server, and a server behind its cluster."""
        kept = await self._read(claim_id, number, FETCH_LIMIT, STREAM_BACK)
        if kept is None:
            subject = self._names.claim(claim_id, number)
            kept = await self._js.surely_last(self._names.claims_stream, subject)
        if kept is None or not kept.data:  # never there, gone by age, or erased
            raise ClaimExpired
        return kept.data

    async def _leave(self, subject: str, chunk: bytes, kept: float, back: float) -> None:
        stream, left = self._names.claims_stream, kept_for(kept)
        try:
            await self._js.write(stream, subject, chunk, left, limit=PUT_LIMIT, back=back)
        except Busy as exc:
            raise Busy("the bus has no room for large audio now; try again in a while") from exc

    async def _read(
        self, claim_id: str, number: int, limit: float, back: float = 0.0
    ) -> Kept | None:
        subject = self._names.claim(claim_id, number)
        return await self._js.last(self._names.claims_stream, subject, limit=limit, back=back)


async def _cut(head: bytes, rest: AsyncIterator[bytes] | None, size: int) -> AsyncGenerator[bytes]:
    """Chunks of `size`; the first is of `head` alone, and only the last may be smaller besides."""
    left = bytearray()
    for at in range(0, len(head), size):
        part = head[at : at + size]
        if len(part) == size or at == 0 or rest is None:
            yield part
        else:
            left += part
    if rest is not None:
        async for piece in rest:
            left += piece
            while len(left) >= size:
                yield bytes(left[:size])
                del left[:size]
    if left:
        yield bytes(left)


async def _fewer(tasks: set[asyncio.Task[None]], most: int) -> None:
    """Wait until fewer than `most` are left; the first that fails fails this."""
    while len(tasks) >= most:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
            tasks.discard(task)


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Stop what is left."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _hashed(parts: list[bytes]) -> str:
    """SHA-256 of the whole in hex; milliseconds for megabytes, so not on the event loop."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _check(ticket: Ticket, size: int, digest: str) -> None:
    """Refuse what is not what the ticket says."""
    if size != ticket.size:
        raise BadRequest("'claim.size': the audio on the bus is smaller than its ticket says")
    if digest != ticket.sha256:
        raise BadRequest("'claim.sha256': the audio on the bus is not what its ticket says")
