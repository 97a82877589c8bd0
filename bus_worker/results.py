"""Where a job's status, its windows, its transcript and its events are kept, and read from.

All of it lies in two streams, as messages on subjects of the job's own. A status is changed only
by who has seen the last one (compare and set), so that workers which know nothing of each other
agree on one course of events; a window's result is written once. In a cluster a server may be a
moment behind: what is read is believed where a write will prove it, else the leader is asked.
"""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker.bus import HEADROOM, bus_errors
from bus_worker.errors import BadRequest, Failed, JobNotFound
from bus_worker.jetstream import Conflict, JetStream, Kept, if_last, kept_for
from bus_worker.job_record import FINAL, JobEvent, JobRecord, Known, Trouble
from bus_worker.messages import pack, unpack
from bus_worker.subjects import Subjects

__all__ = ["RESULTS_KEPT", "Results", "Unreadable"]

RESULTS_KEPT = 86_400.0
"""Seconds that a job is known after its end, unless the workers' settings say otherwise."""
ERASED_KEPT = 7 * 86_400.0
"""Seconds that is known of an erased job that there was one: so long may its message wait."""
PART = 700_000
"""Bytes of a transcript in one message."""
STATUS = "status"
SOURCE = "source"
TRANSCRIPT = "text"
FINAL_EVENT = "final"
"""The id of a job's last event: whoever ends the job, it is told once."""
LOOK_AGAIN = 2.0
"""Seconds after which one who follows a job looks, though nothing was heard."""
CONFLICT_PAUSE = 0.01
LAST_SEQUENCE = 1 << 63


class Unreadable(Failed):
    """What is kept of the job cannot be read; are all of one version?"""


class Results:
    """Reads and writes what is kept of jobs."""

    def __init__(self, nc: Client, names: Subjects, kept: float = RESULTS_KEPT) -> None:
        """Args: kept is the seconds that a job is known after its end."""
        self._nc = nc
        self._names = names
        self._kept = kept
        self.js = JetStream(nc)

    @property
    def _largest(self) -> int:
        """Bytes that one message takes on this bus."""
        return int(self._nc.max_payload - HEADROOM)

    async def known(self, job_id: str) -> Known | None:
        """A job's record, that of an erased one too; None where there is none.

        Raises:
            BadRequest: it is no job's id.
            NoStream, Unavailable: the bus keeps no jobs, or did not answer.
        """
        kept = await self._read(job_id, STATUS)
        known = None if kept is None else Known(_record(kept), kept.sequence)
        if known is not None and known.record.erased:  # it may be another's by now
            known = await self._surely_known(job_id)
        return known

    async def _surely_known(self, job_id: str) -> Known | None:
        subject = self._names.state(job_id, STATUS)
        kept = await self.js.surely_last(self._names.state_stream, subject)
        return Known(_record(kept), kept.sequence) if kept is not None and kept.data else None

    async def record(self, job_id: str) -> JobRecord:
        """A job's record.

        Raises:
            JobNotFound: there is none, or it was erased.
            BadRequest, NoStream, Unavailable: as `known`.
        """
        known = await self.known(job_id)
        if known is None or known.record.erased:
            raise JobNotFound
        return known.record

    async def create(self, record: JobRecord, erased: Known | None = None) -> Known | None:
        """Write a job's first record; None where there is one already.

        Args:
            erased: that of an erased job of the same id, to be written over.
        """
        headers = if_last(erased.sequence if erased else 0)
        try:
            written = await self._write(record.job_id, STATUS, pack(record.to_map()), headers)
        except Conflict:
            return None
        return Known(record, written)

    async def change(
        self, job_id: str, how: Callable[[JobRecord], JobRecord], known: Known | None = None
    ) -> Known:
        """Change a job's record, from whatever it is then.

        Args:
            how: the new record for an old one; the same one where nothing is to be changed. Called
                again where somebody else was quicker.
            known: what it was a moment ago.

        Raises:
            JobNotFound: there is none, or it was erased.
            NoStream, Unavailable, Busy: the bus did not take it.
        """
        sure = known is not None
        while True:
            known = known or await self.known(job_id)
            if known is None or known.record.erased:
                raise JobNotFound
            record = how(known.record)
            if record == known.record:
                if sure:
                    return known
                known, sure = await self._surely_known(job_id), True
                continue
            headers = if_last(known.sequence) | (kept_for(self._kept) if record.final else {})
            try:
                return Known(
                    record, await self._write(job_id, STATUS, pack(record.to_map()), headers)
                )
            except Conflict:
                known, sure = None, False
                await asyncio.sleep(CONFLICT_PAUSE * random.random())  # noqa: S311 - who waits how long

    async def keep_window(self, job_id: str, number: int, result: dict[str, Any]) -> bool:
        """Keep what was heard in one window; False where it is kept already."""
        name, packed, word, parts = f"w{number}", pack(result), "", 0
        if len(packed) > self._largest:
            word, parts = await self._keep_parts(job_id, name, packed, {})
            packed = pack({"word": word, "parts": parts})
        try:
            await self._write(job_id, name, packed, if_last(0))
        except Conflict:
            await self._erase(job_id, _pieces(name, word, parts))
            return False
        return True

    async def window(self, job_id: str, number: int) -> dict[str, Any] | None:
        """What was heard in one window; None where it is not known."""
        kept = await self._read(job_id, f"w{number}")
        said = unpack(kept.data) if kept is not None else None
        if said is None or "parts" not in said:
            return said
        packed = await self._read_parts(job_id, f"w{number}", said["word"], said["parts"])
        return None if packed is None else unpack(packed)

    async def keep_source(self, job_id: str, message: bytes) -> None:
        """Keep a job's message itself, which its queue forgets before it ends."""
        await self._write(job_id, SOURCE, message)

    async def source(self, job_id: str) -> bytes | None:
        """A job's message, if it was kept."""
        kept = await self._read(job_id, SOURCE)
        return kept.data if kept is not None and kept.data else None

    async def trouble(self, job_id: str, window: int) -> Trouble:
        """What a window that comes again has cost so far."""
        kept = await self._read(job_id, f"h{window}")
        return Trouble(*kept.data) if kept is not None else Trouble()

    async def note_trouble(self, job_id: str, window: int, trouble: Trouble) -> None:
        """Remember it; without care for others, as seldom two have the same window in hand."""
        noted = bytes((min(trouble.starts, 255), min(trouble.failures, 255)))
        await self._write(job_id, f"h{window}", noted, kept_for(self._kept))

    async def keep_transcript(self, job_id: str, transcript: dict[str, Any]) -> tuple[str, int]:
        """Keep a transcript, in as many messages as it takes.

        Returns:
            The word under which it lies, and the number of messages.
        """
        lifetime = kept_for(self._kept)
        return await self._keep_parts(job_id, TRANSCRIPT, pack(transcript), lifetime)

    async def transcript(self, record: JobRecord) -> dict[str, Any]:
        """The transcript of a job that is done, as a plain map.

        Raises:
            JobNotFound: it was erased.
        """
        packed = await self._read_parts(record.job_id, TRANSCRIPT, record.answer, record.parts)
        if packed is None:
            raise JobNotFound
        return unpack(packed)

    async def _keep_parts(
        self, job_id: str, name: str, packed: bytes, headers: dict[str, str]
    ) -> tuple[str, int]:
        word, size = secrets.token_hex(4), min(PART, self._largest)
        pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
        for part, piece in zip(_pieces(name, word, len(pieces)), pieces, strict=True):
            await self._write(job_id, part, piece, headers)
        return word, len(pieces)

    async def _read_parts(self, job_id: str, name: str, word: str, parts: int) -> bytes | None:
        reads = (self._read(job_id, part) for part in _pieces(name, word, parts))
        pieces = await asyncio.gather(*reads)
        if not pieces or None in pieces:
            return None
        return b"".join(piece.data for piece in pieces if piece is not None)

    async def erase_work(self, record: JobRecord) -> None:
        """Erase what was needed on the way: windows' results, what they cost, and the message.

        It is looked up: a worker that was killed left more than the record says.
        """
        if record.windows is None and record.status == "done":
            return  # a clip needs nothing
        parts = await self._parts(record.job_id)
        await self._erase(record.job_id, [p for p in parts if not p.startswith(TRANSCRIPT)])

    async def erase_window(self, job_id: str, number: int) -> None:
        """Erase what was heard in one window."""
        parts = await self._parts(job_id)
        await self._erase(job_id, [part for part in parts if part.split("-")[0] == f"w{number}"])

    async def erase_transcript(self, job_id: str, word: str, parts: int) -> None:
        """Erase a transcript that lies under a word."""
        await self._erase(job_id, _pieces(TRANSCRIPT, word, parts))

    async def erase(self, record: JobRecord) -> None:
        """Erase all that is known of a job, but that there was one: its message may still wait."""
        await self._erase_all(record.job_id)
        bare = JobRecord(
            job_id=record.job_id, status=record.status, model=record.model, erased=True,
            sequence=record.sequence,
        )  # fmt: skip
        await self._write(record.job_id, STATUS, pack(bare.to_map()), kept_for(ERASED_KEPT))

    async def erase_since(self, job_id: str) -> None:
        """Erase what was written of a job after it was erased; another one of its id stays as it is."""
        known = await self.known(job_id)
        if known is None or known.record.erased:
            await self._erase_all(job_id)

    async def _erase_all(self, job_id: str) -> None:
        await self._erase(job_id, await self._parts(job_id))
        rollup = {"Nats-Rollup": "sub", **kept_for(1)}
        await self.js.write(self._names.events_stream, self._names.events(job_id), b"", rollup)

    async def _parts(self, job_id: str) -> list[str]:
        """All that is kept of a job beside its status; a worker that was killed left more than the record says."""
        found, sequence = list[str](), 0
        stream, subject = self._names.state_stream, self._names.state(job_id, "*")
        while kept := (
            await self.js.following(stream, subject, sequence + 1)
            or await self.js.surely_following(stream, subject, sequence + 1)
        ):
            sequence = kept.sequence
            if kept.data:
                found.append(kept.headers["Nats-Subject"].rpartition(".")[2])
        return [part for part in found if part != STATUS]

    async def tell(self, record: JobRecord, key: str, **more: Any) -> None:
        """Tell an event of a job, once for each key.

        One larger than a message says only how far the job is: its text is in the transcript.
        """
        event = JobEvent(0, record.job_id, record.status, record.progress, **more)
        job_id, packed = record.job_id, pack(event.to_map())
        if len(packed) > self._largest:
            packed = pack(replace(event, window=None, segments=[]).to_map())
        await self.js.write(
            self._names.events_stream,
            self._names.events(job_id),
            packed,
            # The time tells it from an erased job's of the same id.
            {"Nats-Msg-Id": f"{job_id}.{record.created_at}.{key}"},
        )

    async def tell_end(self, record: JobRecord) -> None:
        """Tell the last event of a job; whoever tells it again tells nobody."""
        await self.tell(record, FINAL_EVENT, error=record.error)

    async def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent]:
        """A job's events as they come, those behind the event `after` first; ends with the last.

        Windows end in any order and do not wait for each other: their `progress` never goes back here.

        Raises:
            JobNotFound: there is no such job, or it was erased meanwhile.
            BadRequest: no event can have the id `after`.
            NoStream, Unavailable: as `known`.
        """
        if not 0 <= after < LAST_SEQUENCE:
            raise BadRequest(f"no event has the id {after}", field="after")
        await self.record(job_id)
        stream, subject = self._names.events_stream, self._names.events(job_id)
        done = 0.0
        async with self._news(subject) as news:
            while True:
                news.clear()
                kept = await self.js.following(stream, subject, after + 1)
                if kept is not None and kept.data:
                    event = JobEvent.from_map(kept.sequence, unpack(kept.data))
                    after, done = event.id, max(done, event.progress)
                    yield replace(event, progress=done)
                    if event.final:
                        return
                    continue
                record = await self.record(job_id)
                if record.final and not await self._more(stream, subject, after, news):
                    # Told longer ago than events are kept, or heard by the asker already.
                    yield JobEvent(
                        after, job_id, record.status, record.progress, error=record.error
                    )
                    return
                await _heard(news, LOOK_AGAIN)

    async def ended(self, job_id: str) -> JobRecord:
        """A job's record once it is final, waited for.

        Raises:
            JobNotFound, NoStream, Unavailable: as `record`.
        """
        async with self._news(self._names.events(job_id), _is_last) as news:
            while True:
                news.clear()
                record = await self.record(job_id)
                if record.final:
                    return record
                await _heard(news, LOOK_AGAIN)

    async def _more(self, stream: str, subject: str, after: int, news: asyncio.Event) -> bool:
        """Whether an event came while the record was read; the last one is told just behind it."""
        for patience in (0.05, 0.5):
            await _heard(news, patience)
            news.clear()
            if await self.js.following(stream, subject, after + 1) is not None:
                return True
        return False

    @asynccontextmanager
    async def _news(
        self, subject: str, matters: Callable[[Msg], bool] = lambda _: True
    ) -> AsyncIterator[asyncio.Event]:
        """Set when something that matters is told on a subject; what is told is read where it is kept."""
        news = asyncio.Event()

        async def heard(msg: Msg) -> None:
            if matters(msg):
                news.set()

        with bus_errors():
            sub = await self._nc.subscribe(subject, cb=heard)
        try:
            yield news
        finally:
            if not self._nc.is_closed:
                with bus_errors():
                    await sub.unsubscribe()

    async def _read(self, job_id: str, part: str) -> Kept | None:
        """What lies there: that nothing does is believed only of the server that leads the stream."""
        stream, subject = self._names.state_stream, self._names.state(job_id, part)
        kept = await self.js.last(stream, subject) or await self.js.surely_last(stream, subject)
        return kept if kept is not None and kept.data else None

    async def _write(
        self, job_id: str, part: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> int:
        subject = self._names.state(job_id, part)
        written = await self.js.write(self._names.state_stream, subject, payload, headers)
        return written.sequence

    async def _erase(self, job_id: str, parts: list[str]) -> None:
        """Write nothing over it, which takes no more rights than writing it did."""
        with bus_errors():
            for part in parts:
                await self._nc.publish(self._names.state(job_id, part), b"", headers=kept_for(1))


def _pieces(name: str, word: str, parts: int) -> list[str]:
    """Under which names the parts lie of what is larger than a message; by a word, as two may keep it at once."""
    return [f"{name}-{word}-{number}" for number in range(parts)]


async def _heard(news: asyncio.Event, patience: float) -> None:
    """Wait until something is told, or patience ends: what is kept is looked at either way."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await news.wait()


def _is_last(msg: Msg) -> bool:
    """Whether a job has ended, or was erased: that is told with nothing."""
    return not msg.data or unpack(msg.data).get("status") in FINAL


def _record(kept: Kept) -> JobRecord:
    try:
        return JobRecord.from_map(unpack(kept.data))
    except (BadRequest, Failed) as exc:
        raise Unreadable from exc
