"""Audio too large for a message: left in a stream in chunks, fetched with a ticket, verified.

The stream keeps one message a subject and refuses when it is full, so that nobody's live audio is
ever pushed out; whoever left a claim overwrites it with nothing when it is no longer needed, which
takes no more rights than leaving it did, and age takes what was forgotten.
"""

import asyncio
import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker.bus import HEADROOM, bus_errors, header
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Busy,
    ClaimExpired,
    DeadlineExceeded,
    Failed,
    Unavailable,
)
from bus_worker.messages import MIN_CHUNK, Ticket
from bus_worker.subjects import Subjects

__all__ = ["ClaimCheck", "Deposit", "NoStream"]

_log = logging.getLogger(__name__)

CHUNK = 900_000
AT_ONCE = 4
"""Chunks under way at once, in either direction."""
ANSWER_LIMIT = 3.0
"""Seconds without an answer after which the bus is asked again."""
PUT_LIMIT = 10.0
"""Seconds in which the bus must have taken a chunk."""
FETCH_LIMIT, PER_MEGABYTE = 10.0, 1.0
"""Seconds in which the whole must be there, and those that each megabyte adds."""
STREAM_BACK = 3.0
"""Seconds that a stream may be away for: its server has just started."""
ABSENT_FOR = 10.0
"""Seconds that "there is no such stream" is believed."""
NOBODYS = "0" * 32
FULL = frozenset({10023, 10047, 10077})
"""JetStream's errors for want of room: resources, storage, the stream's own limits."""


class NoStream(Unavailable):
    """The bus keeps no large audio: enable jetstream on nats-server and run `bus-worker setup`."""


@dataclass(slots=True)
class Deposit:
    """What was left on the bus for one call: under which id, and how many chunks at most."""

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    chunks: int = 0


class ClaimCheck:
    """Leaves audio on the bus, and fetches it."""

    def __init__(self, nc: Client, names: Subjects) -> None:
        self._nc = nc
        self._names = names
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
        """Whether the stream is there to fetch from."""
        try:
            msg = await self._ask(self._place(NOBODYS, 0), b"", ANSWER_LIMIT)
        except Unavailable:
            return False
        return header(msg, "Status") == "404"

    async def put(
        self, deposit: Deposit, head: bytes, rest: AsyncIterator[bytes] | None = None
    ) -> Ticket:
        """Leave audio on the bus: `head`, then what `rest` brings, a few chunks in memory at a time.

        Nothing is taken from `rest` before the first chunk is safe.

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
                    count, size = count + 1, size + len(chunk)
                    deposit.chunks = max(deposit.chunks, count)
                    sending.add(asyncio.create_task(self._leave(subject, chunk), name="chunk"))
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
        """Put nothing in the place of each chunk; without a connection age must do it."""
        with suppress(BusWorkerError), bus_errors():
            for number in range(deposit.chunks if self._nc.is_connected else 0):
                await self._nc.publish(self._names.claim(deposit.id, number), b"")

    async def fetch(self, ticket: Ticket) -> bytes:
        """The audio that a ticket stands for.

        Raises:
            ClaimExpired: it is gone, or part of it.
            BadRequest: it is not what the ticket says.
            Unavailable: the bus did not bring it in time.
        """
        parts = [b""] * ticket.chunks
        numbers = iter(range(ticket.chunks))
        came = 0

        async def some() -> None:
            nonlocal came
            for number in numbers:
                parts[number] = await self._chunk(ticket.id, number)
                came += len(parts[number])
                if came > ticket.size:
                    raise BadRequest(
                        "'claim.size': the audio on the bus is larger than its ticket says"
                    )

        limit = FETCH_LIMIT + PER_MEGABYTE * ticket.size / 1_000_000
        fetching = {asyncio.create_task(some(), name="fetch") for _ in range(AT_ONCE)}
        try:
            async with asyncio.timeout(limit):
                await _fewer(fetching, 1)
        except TimeoutError:
            raise Unavailable(f"the audio did not come from the bus in {limit:.0f} s") from None
        finally:
            await _ended(fetching)
        return await asyncio.to_thread(_joined, parts, ticket)

    async def _chunk(self, claim_id: str, number: int) -> bytes:
        """One chunk; a stream that is not there may be a moment behind its server."""
        until = time.monotonic() + STREAM_BACK
        while True:
            try:
                msg = await self._ask(self._place(claim_id, number), b"", FETCH_LIMIT)
                break
            except NoStream:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)
        status = header(msg, "Status")
        if status not in {None, "404"}:
            raise Failed(f"the bus would not give the audio back: status {status}")
        if not msg.data:  # never there, gone by age, or erased
            raise ClaimExpired
        return bytes(msg.data)

    async def _leave(self, subject: str, chunk: bytes) -> None:
        stream = self._names.claims_stream
        msg = await self._ask(subject, chunk, PUT_LIMIT, {"Nats-Expected-Stream": stream})
        try:
            said = json.loads(msg.data)
            if said.get("stream") == stream and "error" not in said:
                return
            number, why = said["error"]["err_code"], str(said["error"]["description"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            _log.error("what answers on %s is no stream of nats-server's", subject)
            raise Failed("the bus does not keep audio as it should; the log has the cause") from exc
        _log.warning("%s takes no audio: %s", stream, why)  # our callers' callers need not know it
        if number in FULL:
            raise Busy("the bus has no room for large audio now; try again in a while")
        raise Unavailable("the bus did not keep the audio; try again in a while")

    async def _ask(
        self, subject: str, payload: bytes, limit: float, headers: Mapping[str, str] | None = None
    ) -> Msg:
        """One question to the server, put again while it is away: asking twice does no harm here.

        Raises:
            NoStream: nothing listens there.
            Unavailable: no answer by the limit.
        """
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        with bus_errors():
                            return await self._asked(subject, payload, headers)
                    except (DeadlineExceeded, Unavailable) as exc:
                        if self._nc.is_closed or isinstance(exc, NoStream):
                            raise
                        await asyncio.sleep(0.05)
        except TimeoutError:
            place = subject.rpartition(".")[0]
            _log.warning("no answer on %s; is this user allowed to publish there?", place)
            raise Unavailable(f"the bus said nothing for {limit:g} s") from None

    async def _asked(self, subject: str, payload: bytes, headers: Mapping[str, str] | None) -> Msg:
        while not self._nc.is_connected:
            if self._nc.is_closed:
                raise Unavailable("the bus connection is closed")
            await asyncio.sleep(0.05)
        try:
            given = None if headers is None else dict(headers)
            return await self._nc.request(subject, payload, timeout=ANSWER_LIMIT, headers=given)
        except nats_errors.NoRespondersError:
            raise NoStream from None

    def _place(self, claim_id: str, number: int) -> str:
        return self._names.direct_get(self._names.claim(claim_id, number))


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


async def _ended(tasks: set[asyncio.Task[None]]) -> None:
    """Stop what is left."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _joined(parts: list[bytes], ticket: Ticket) -> bytes:
    """The whole, if it is what the ticket says; milliseconds for megabytes, so not on the event loop."""
    audio = b"".join(parts)
    if len(audio) != ticket.size:
        raise BadRequest("'claim.size': the audio on the bus is smaller than its ticket says")
    if hashlib.sha256(audio).hexdigest() != ticket.sha256:
        raise BadRequest("'claim.sha256': the audio on the bus is not what its ticket says")
    return audio
