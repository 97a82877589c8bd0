"""A caller's end of the bus: answers to many calls on one subscription, and who is there to ask."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker.bus import HEADROOM, bus_errors, forbidden, header, may_answer
from bus_worker.errors import BadRequest, BusWorkerError, TooLarge, Unavailable
from bus_worker.messages import unpack
from bus_worker.subjects import Subjects

__all__ = ["Box", "Inbox", "WorkerInfo", "refused"]

REJOINING = 3.0
"""Seconds after a reconnect in which workers may still be on their way back too."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that answered: who it is and what it serves."""

    id: str
    model: str
    revision: str | None
    version: str
    slots: int | None = None
    """Requests it takes at once, if it says so."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where the answers to one call arrive."""

    subject: str
    arrived: "asyncio.Queue[Msg]" = field(default_factory=asyncio.Queue)

    async def next(self) -> Msg:
        """The next message.

        Raises:
            Forbidden: the server did not let a question of ours through.
        """
        msg = await self.arrived.get()
        if (why := forbidden(msg)) is not None:
            raise why
        return msg


class Inbox:
    """One wildcard subscription on a connection, shared by every call."""

    def __init__(self, nc: Client, names: Subjects) -> None:
        self.nc = nc
        self.names = names
        self._prefix = nc.new_inbox()
        self._boxes: dict[str, Box] = {}
        self._sub: Any = None
        self._reconnects: int = nc.stats["reconnects"]
        self._back_at = float("-inf")

    async def open(self) -> None:
        """Begin to take answers.

        Raises:
            BadRequest: the connection's inboxes lie where workers do not answer.
        """
        if not may_answer(self._prefix):
            raise BadRequest("workers answer under _INBOX. only: connect with such an inbox_prefix")
        with bus_errors():
            self._sub = await self.nc.subscribe(f"{self._prefix}.*", cb=self._on_message)

    async def close(self) -> None:
        """Take no more; the connection stays."""
        if self._sub is not None and not self.nc.is_closed:
            with contextlib.suppress(BusWorkerError), bus_errors():
                await self._sub.unsubscribe()
        self._sub = None

    @contextlib.contextmanager
    def box(self) -> Iterator[Box]:
        """A box for the length of a call."""
        token = secrets.token_hex(8)
        box = self._boxes[token] = Box(f"{self._prefix}.{token}")
        try:
            yield box
        finally:
            del self._boxes[token]

    @property
    def rejoining(self) -> bool:
        """Whether the connection came back a moment ago: workers may need one more to do so too."""
        if self.nc.stats["reconnects"] != self._reconnects:
            self._reconnects = self.nc.stats["reconnects"]
            self._back_at = time.monotonic()
        return time.monotonic() - self._back_at < REJOINING

    async def connected(self) -> None:
        """Wait for the connection: what is published without one goes out when nobody wants it.

        Raises:
            Unavailable: it will not come back.
        """
        while not self.nc.is_connected:
            if self.nc.is_closed:
                raise Unavailable("the bus connection is closed")
            await asyncio.sleep(0.05)

    async def publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Publish one message.

        Raises:
            TooLarge: larger than the bus takes; says what to set.
            Unavailable: the connection is closed.
        """
        largest = self.nc.max_payload - HEADROOM
        if len(payload) > largest:
            raise TooLarge(
                f"the message has {len(payload)} bytes, the bus takes {largest}; raise max_payload"
                " on nats-server, or send compressed audio",
                size=len(payload),
                maximum=largest,
            )
        with bus_errors():
            await self.nc.publish(subject, payload, reply=reply, headers=headers)

    async def workers(
        self, wait: float, enough: Callable[[WorkerInfo], bool] = lambda _: False
    ) -> list[WorkerInfo] | None:
        """Workers that answer `$SRV.PING` within `wait` seconds, or until one of them is `enough`.

        None: the server says that there is none. An empty list is silence, which says less: they
        may be slow.
        """
        found: dict[str, WorkerInfo] = {}
        nobody = False
        await self.connected()
        with self.box() as box, contextlib.suppress(TimeoutError):
            await self.publish(self.names.discovery("PING")[1], b"", box.subject)
            async with asyncio.timeout(wait):
                while not (nobody := refused(msg := await box.next())):
                    info = _worker_info(msg)
                    if info is None:
                        continue
                    found[info.id] = info
                    if enough(info):
                        break
        if nobody and not found:
            return None
        return sorted(found.values(), key=lambda worker: (worker.model, worker.id))

    async def ask_all(
        self, subject: str, wait: float, whom: Collection[str]
    ) -> dict[str, dict[str, Any]]:
        """What workers answer to a broadcast within `wait` seconds, by worker; all of `whom` is enough."""
        found: dict[str, dict[str, Any]] = {}
        await self.connected()
        with self.box() as box, contextlib.suppress(TimeoutError):
            await self.publish(subject, b"", box.subject)
            async with asyncio.timeout(wait):
                while not set(whom) <= found.keys() and not refused(msg := await box.next()):
                    said = unpack(msg.data)
                    found[str(said.get("worker_id"))] = said
        return found

    async def figures(self, wait: float) -> dict[str, dict[str, Any]]:
        """What workers count of themselves, of those that answer within `wait` seconds, by worker."""
        found: dict[str, dict[str, Any]] = {}
        await self.connected()
        with self.box() as box, contextlib.suppress(TimeoutError):
            await self.publish(self.names.discovery("STATS")[1], b"", box.subject)
            async with asyncio.timeout(wait):
                while not refused(msg := await box.next()):
                    # Not every service of this name need be a worker.
                    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                        said = json.loads(msg.data)
                        found[said["id"]] = said["endpoints"][0]["data"]
        return found

    async def _on_message(self, msg: Msg) -> None:
        box = self._boxes.get(msg.subject.rpartition(".")[2])
        if box is not None:
            box.arrived.put_nowait(msg)


def refused(msg: Msg) -> bool:
    """Whether the server says that nobody listens ("no responders")."""
    return header(msg, "Status") == "503" and not msg.data


def _worker_info(msg: Msg) -> WorkerInfo | None:
    """A PING answer, or None for one that is not a worker's."""
    try:
        data = json.loads(msg.data)
        meta = data["metadata"]
        return WorkerInfo(
            id=data["id"],
            model=meta["model"],
            revision=meta.get("revision") or None,
            version=data["version"],
            slots=int(meta["slots"]) if "slots" in meta else None,
        )
    except (ValueError, KeyError, TypeError):
        return None
