"""What JetStream keeps: written and read by questions that are put again while the bus is away.

Everything here is one request to the server and its answer; streams are made elsewhere (`streams`).
"""

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker.bus import Forbidden, bus_errors, header
from bus_worker.errors import Busy, DeadlineExceeded, Failed, Unavailable

__all__ = [
    "ANSWER_LIMIT",
    "Conflict",
    "JetStream",
    "Kept",
    "NoStream",
    "Written",
    "if_last",
    "kept_for",
]

_log = logging.getLogger(__name__)

ANSWER_LIMIT = 3.0
"""Seconds without an answer after which the bus is asked again."""
LIMIT = 10.0
"""Seconds in which the bus must have answered."""
FULL = frozenset({10023, 10047, 10077})
"""JetStream's errors for want of room: resources, storage, the stream's own limits."""
WRONG_LAST = frozenset({10071, 10164})
"""JetStream's errors where somebody else wrote first."""
NO_MESSAGE = 10037
NO_SUCH_STREAM = 10059
IF_LAST = "Nats-Expected-Last-Subject-Sequence"
WRITE_ID = "Stt-Write-Id"
"""Tells a write with a condition from everybody else's."""


class NoStream(Unavailable):
    """The bus keeps nothing under this name: enable jetstream on nats-server and run `bus-worker setup`."""


class Conflict(Exception):
    """Somebody else wrote there first."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as a stream keeps it."""

    data: bytes
    sequence: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """Where a message lies now; `duplicate` where the same id was written before."""

    sequence: int
    duplicate: bool = False


def if_last(sequence: int) -> dict[str, str]:
    """Headers that let a write through only where this is the subject's last message (0: none)."""
    return {IF_LAST: str(sequence)}


def kept_for(seconds: float) -> dict[str, str]:
    """Headers that let a message expire by itself (nats-server 2.11)."""
    return {"Nats-TTL": str(max(1, round(seconds)))}


class JetStream:
    """Writes to streams and reads from them, over a connection that somebody else keeps."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def write(
        self,
        stream: str,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        limit: float = LIMIT,
        back: float = 0.0,
    ) -> Written:
        """Have a message kept; written twice where the first answer is lost, so give it an id or a condition.

        A write with a condition that came through, and whose answer was lost, is known again.

        Args:
            limit: seconds in which it must be kept.
            back: as for `ask`.

        Raises:
            Conflict: a condition in `headers` does not hold.
            NoStream: no stream takes this subject.
            Busy: it has no room for it now.
            Unavailable: the bus did not keep it in time.
            Failed: what answers is no stream of the server's.
        """
        given = {"Nats-Expected-Stream": stream, **(headers or {})}
        if IF_LAST in given:
            given[WRITE_ID] = secrets.token_hex(8)
        msg = await self.ask(subject, payload, given, limit=limit, back=back)
        try:
            said = json.loads(msg.data)
            if said.get("stream") == stream and "error" not in said:
                return Written(int(said["seq"]), bool(said.get("duplicate")))
            number, why = said["error"]["err_code"], str(said["error"]["description"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            _log.error("what answers on %s is no stream of nats-server's", subject)
            raise Failed("the bus does not keep what it should; the log has the cause") from exc
        if number in WRONG_LAST:
            return await self._written_before(stream, subject, given)
        _log.warning("%s takes nothing: %s", stream, why)  # our callers' callers need not know it
        if number in FULL:
            raise Busy("the bus has no room for it now; try again in a while")
        raise Unavailable("the bus did not keep it; try again in a while")

    async def _written_before(self, stream: str, subject: str, given: Mapping[str, str]) -> Written:
        """What lies there in the way, if we wrote it ourselves."""
        kept = await self.surely_last(stream, subject)
        if WRITE_ID in given and kept and kept.headers.get(WRITE_ID) == given[WRITE_ID]:
            return Written(kept.sequence)
        raise Conflict

    async def last(
        self, stream: str, subject: str, *, limit: float = LIMIT, back: float = 0.0
    ) -> Kept | None:
        """The last message on a subject; None where there is none.

        Any server that keeps the stream answers: in a cluster it may be a moment behind what was
        written (see `surely_last`).

        Args:
            limit: seconds in which it must be there.
            back: as for `ask`.

        Raises:
            NoStream: there is no such stream, or it is not open for direct reading.
            Unavailable: no answer in time.
        """
        place = f"$JS.API.DIRECT.GET.{stream}.{subject}"
        return _kept(await self.ask(place, b"", limit=limit, back=back))

    async def surely_last(self, stream: str, subject: str) -> Kept | None:
        """The last message on a subject as the server knows it that leads the stream; None where there is none.

        Raises:
            NoStream, Unavailable: as `last`.
        """
        return await self._of_leader(stream, {"last_by_subj": subject})

    async def surely_following(self, stream: str, subject: str, sequence: int) -> Kept | None:
        """As `following`, as the server knows it that leads the stream.

        Raises:
            NoStream, Unavailable: as `last`.
        """
        return await self._of_leader(stream, {"seq": sequence, "next_by_subj": subject})

    async def following(self, stream: str, subject: str, sequence: int) -> Kept | None:
        """The first message on a subject at a sequence of the stream or behind it.

        Raises:
            NoStream, Unavailable: as `last`.
        """
        question = json.dumps({"seq": sequence, "next_by_subj": subject}).encode()
        return _kept(await self.ask(f"$JS.API.DIRECT.GET.{stream}", question))

    async def api(self, question: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers to a question under `$JS.API.`, errors included.

        Raises:
            NoStream, Unavailable: as `last`.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        msg = await self.ask(f"$JS.API.{question}", payload, limit=ANSWER_LIMIT)
        said: dict[str, Any] = json.loads(msg.data)
        return said

    async def ask(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        limit: float = LIMIT,
        back: float = 0.0,
    ) -> Msg:
        """One question to the server, put again while it is away: asking twice does no harm here.

        Args:
            limit: seconds in which the answer must be there.
            back: seconds that the stream itself may be away for: its server may have just started.

        Raises:
            NoStream: nothing listens there.
            Forbidden: this user may not ask that.
            Unavailable: no answer by the limit.
        """
        clock, connection = asyncio.get_running_loop().time, self._nc.stats["reconnects"]
        absent: float | None = None  # since when nobody listens
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        with bus_errors():
                            return await self._asked(subject, payload, headers)
                    except (DeadlineExceeded, Unavailable) as exc:
                        absent = (absent or clock()) if isinstance(exc, NoStream) else None
                        if self._nc.is_closed or isinstance(exc, Forbidden):
                            raise
                        gone = absent is not None and clock() - absent >= back
                        if gone and not self._may_come(connection):
                            raise
                        await asyncio.sleep(0.05)
        except TimeoutError:
            if absent:
                raise NoStream from None
            place = subject.rpartition(".")[0]
            _log.warning("no answer on %s; is this user allowed to publish there?", place)
            raise Unavailable(f"the bus said nothing for {limit:g} s") from None

    def _may_come(self, connection: int) -> bool:
        """Whether a stream at which nobody listens may be there soon.

        Its server has just started, if this is no more the connection that it was; in a cluster it
        may have lost its leader, until another one is elected.
        """
        clustered = "cluster" in self._nc._server_info  # noqa: SLF001 - told nowhere else
        return clustered or bool(self._nc.stats["reconnects"] != connection)

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

    async def _of_leader(self, stream: str, question: Mapping[str, Any]) -> Kept | None:
        said = await self.api(f"STREAM.MSG.GET.{stream}", question)
        if "error" in said:
            if said["error"].get("err_code") == NO_MESSAGE:
                return None
            if said["error"].get("err_code") == NO_SUCH_STREAM:
                raise NoStream
            _log.warning("%s gives nothing back: %s", stream, said["error"].get("description"))
            raise Unavailable("the bus would not give back what it keeps; try again in a while")
        found = said["message"]
        lines = base64.b64decode(found.get("hdrs") or "").decode(errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name: value.strip() for name, _, value in pairs}
        data = base64.b64decode(found.get("data") or "")
        return Kept(data, int(found["seq"]), {**headers, "Nats-Subject": str(found["subject"])})


def _kept(msg: Msg) -> Kept | None:
    status = header(msg, "Status")
    if status == "404":
        return None
    if status is not None:
        raise Failed(f"the bus would not give back what it keeps: status {status}")
    sequence = int(header(msg, "Nats-Sequence") or 0)
    return Kept(bytes(msg.data), sequence, msg.headers or {})
