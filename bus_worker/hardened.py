"""nats-py's client without its ways to die silently, and with one-message subscriptions.

nats-py 2.16.0 can go silent in six ways while `is_connected` stays True, and swallows a cancellation. The overrides are of
private methods, so they fit 2.16 only; each has a test that the stock class fails.
"""

import asyncio
import contextlib
import logging
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

__all__ = ["MALFORMED", "REFUSED", "HardenedClient", "Refused"]

_log = logging.getLogger(__name__)

MALFORMED = "Bus-Worker-Malformed"
"""A header that stands in for headers that cannot be read."""
MALFORMED_BLOCK = f"NATS/1.0\r\n{MALFORMED}: 1\r\n\r\n".encode()

REFUSED = f"Bus-Worker-Refused-{secrets.token_hex(8)}"
"""A header that says why the server did not let a question through; the server's own word names no question.

Nobody else knows it: what a stream keeps brings headers that somebody wrote.
"""
VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
REMEMBERED = 256
"""Questions that may be on their way when the server says that it refuses one."""


class Refused(nats_errors.Error):
    """The server does not let this user do that."""


class HardenedClient(Client):
    """nats-py's client without its ways to die silently; each override has a test that the stock class fails."""

    def __init__(self) -> None:
        super().__init__()
        self.undecodable = 0
        """Messages whose headers or subject could not be decoded."""
        self.unheard: dict[str, str] = {}
        """Subjects on which the server does not let us listen, with what to do about it."""
        self._questions: deque[tuple[str, str]] = deque(maxlen=REMEMBERED)

    async def connect(  # type: ignore[override]
        self, servers: Any = "nats://localhost:4222", error_cb: Any = None, **options: Any
    ) -> None:
        """Connect, with an error callback that cannot raise into the read loop (slow consumers end there)."""

        async def guarded(error: Exception) -> None:
            try:
                if error_cb is not None:
                    await error_cb(error)
            except Exception:  # noqa: BLE001 - somebody's code; it is in the log
                _log.exception("bus error callback failed")

        await super().connect(servers, guarded, **options)

    async def _send_ping(self, future: "asyncio.Future[bool] | None" = None) -> None:
        """Write PING behind what is buffered: stock sends it first, so that flush and drain prove nothing."""
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - as it is there
        """Kick the writer, and be cancelled where the caller is: stock goes on for somebody who has left."""
        with _cancelled_as_told():
            return await super()._flush_pending(force_flush)

    async def rtt(self, *args: Any, **options: Any) -> float:
        """Ask how far the server is, and be cancelled where the caller is."""
        with _cancelled_as_told():
            return await super().rtt(*args, **options)

    async def flush(self, *args: Any, **options: Any) -> None:
        """Have all that was written read by the server, and be cancelled where the caller is."""
        with _cancelled_as_told():
            await super().flush(*args, **options)

    async def request(self, *args: Any, **options: Any) -> Msg:
        """Ask, and be cancelled where the caller is: with the answer at that very moment stock goes on for ever."""
        with _cancelled_as_told():
            msg = await super().request(*args, **options)
        if msg.headers and REFUSED in msg.headers:
            raise Refused(msg.headers[REFUSED])
        return msg

    async def _process_err(self, err_msg: str) -> None:
        """Tell who waits for an answer that the server refused the question: stock lets it wait."""
        found = VIOLATION.search(err_msg)
        if found is None or not await self._told(found[1], found[2]):
            await super()._process_err(err_msg)

    async def _told(self, what: str, lowered: str) -> bool:
        """Whether somebody hears of a refusal, or will as soon as an answer is to come there."""
        if what == "publish":
            # The server's mapping of a default may have added a word: who said it all is meant first.
            asked = self._asked(lowered) or self._asked(lowered.rpartition(".")[0])
            for subject, reply in asked:
                self._questions.remove((subject, reply))
                await self._refuse(reply, self._not_let("publish on", subject))
            return bool(asked)
        subjects = {sub.subject for sub in self._subs.values()}
        self.unheard = {name: why for name, why in self.unheard.items() if name in subjects}
        for place in [name for name in subjects if name.lower() == lowered]:
            self.unheard[place] = self._not_let("listen on", place)
            for _, reply in [pair for pair in self._questions if _leads(pair[1], place)]:
                await self._refuse(reply, self.unheard[place])
        return lowered.startswith("_inbox.")

    def _asked(self, lowered: str) -> list[tuple[str, str]]:
        return [pair for pair in self._questions if pair[0].lower() == lowered]

    def _not_let(self, what: str, subject: str) -> str:
        user = self.options.get("user")
        who = f"user {user!r}" if user else "this user"
        mend = (
            "set NATS_INBOX_PREFIX to where it may"
            if subject.startswith("_INBOX.")
            else "have its permissions widened, or be another user"
        )
        return f"the bus does not let {who} {what} {subject}: {mend}"

    async def _refuse(self, reply: str, why: str) -> None:
        """Answer a question ourselves."""
        block = f"NATS/1.0 403\r\n{REFUSED}: {why}\r\n\r\n".encode()
        for sid in [sid for sid, sub in self._subs.items() if _leads(reply, sub.subject)]:
            await super()._process_msg(sid, reply.encode(), b"", b"", block)

    async def _process_pong(self) -> None:
        """Take a PONG whose waiter gave up: stock sets its cancelled future and loses the read loop."""
        if self._pongs:
            future = self._pongs.pop(0)
            if not future.done():
                future.set_result(True)
            self._pongs_received += 1
            self._pings_outstanding = 0

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Mark a message whose headers or subject cannot be decoded: in stock it ends the read loop.

        It is handed on rather than dropped: it has used up the credit it came on.
        """
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except Exception as exc:  # noqa: BLE001 - whatever a stranger's bytes cause costs that message only
            self.undecodable += 1
            _log.warning("a message could not be decoded: %s", type(exc).__name__)
            subject = subject.decode(errors="replace").encode()
            reply = reply if _is_text(reply) else b""
            try:
                await super()._process_msg(sid, subject, reply, data, MALFORMED_BLOCK)
            except Exception:  # noqa: BLE001 - it is in the log
                _log.exception("a message was dropped")

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: Any
    ) -> None:
        """Count the headers too, as the server does: it closes the connection for good over its limit."""
        if headers:
            size = 12 + sum(len(f"{k}: {v}\r\n".encode()) for k, v in headers.items())
            if size + payload_size > self._max_payload:
                raise nats_errors.MaxPayloadError
        if reply:
            if self.unheard and (why := self.unheard.get(f"{reply.rpartition('.')[0]}.*")):
                raise Refused(why)
            self._questions.append((subject, reply))
        await super()._send_publish(subject, reply, payload, payload_size, headers)

    async def subscribe(  # type: ignore[override]
        self, subject: str, queue: str = "", cb: Any = None, **options: Any
    ) -> Subscription:
        """Subscribe with a callback that survives awaiting something cancelled: stock ends the subscription."""
        return await super().subscribe(subject, queue, _uncancelled(cb) if cb else None, **options)

    async def _send_subscribe(self, sub: Subscription) -> None:
        """Leave it to the reconnect, which replays every subscription, when there is no connection."""
        if self.is_connected:
            await super()._send_subscribe(sub)

    async def _send_unsubscribe(self, sid: int, limit: int = 0) -> None:
        """As above: a new connection knows nothing of the old one's subscriptions."""
        if self.is_connected:
            await super()._send_unsubscribe(sid, limit)

    def forget_unsent_subscriptions(self) -> None:
        """Take SUB and UNSUB out of the buffer: sent after a reconnect they would name dead subscriptions."""
        self.unheard.clear()  # the next server says so again
        self._pending = [c for c in self._pending if not c.startswith((b"SUB ", b"UNSUB "))]
        self._pending_data_size = sum(map(len, self._pending))

    def subscribe_once(
        self, subject: str, queue: str, cb: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        """Ask the server for one message; it enforces the limit before bytes leave it.

        SUB and UNSUB go in one write, and this method does not await: nothing comes between. The
        server can still slip in a second message, so the subscription stays until `forget`.
        """
        self._sid += 1
        sub = Subscription(self, self._sid, subject, queue, cb=_uncancelled(cb))
        sub._start(self._error_cb)  # type: ignore[no-untyped-call]  # noqa: SLF001 - what Client.subscribe does
        self._subs[self._sid] = sub
        command = b"SUB %b %b %d\r\nUNSUB %d 1\r\n" % (
            subject.encode(), queue.encode(), self._sid, self._sid,
        )  # fmt: skip
        self._pending.append(command)
        self._pending_data_size += len(command)
        return sub

    def withdraw(self, sub: Subscription) -> None:
        """Ask the server for no more on a subscription, which stays for what is on its way until `forget`."""
        command = b"UNSUB %d\r\n" % sub._id  # noqa: SLF001 - no public way that drops nothing
        self._pending.append(command)
        self._pending_data_size += len(command)

    def forget(self, sub: Subscription) -> list[Msg]:
        """Drop a subscription here; returns messages that arrived and were not yet handled."""
        self._subs.pop(sub._id, None)  # noqa: SLF001 - no public way without an UNSUB
        left = []
        while not sub._pending_queue.empty():  # noqa: SLF001
            left.append(sub._pending_queue.get_nowait())  # noqa: SLF001
        sub._stop_processing()  # noqa: SLF001
        return left

    async def flush_soon(self) -> None:
        """Kick the writer."""
        await self._flush_pending()


@contextlib.contextmanager
def _cancelled_as_told() -> Iterator[None]:
    """Be cancelled at the end of the block where its task was told so, whatever the block made of it.

    asyncio's `wait_for` swallows a cancellation that meets what it waits for up to Python 3.11: the
    block may then end well, or with what it read in the answer.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _leads(reply: str, place: str) -> bool:
    """Whether an answer comes in on a subscription, which is to this subject or to all beside it."""
    return place in {reply, f"{reply.rpartition('.')[0]}.*"}


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _uncancelled(cb: Callable[[Msg], Awaitable[None]]) -> Callable[[Msg], Awaitable[None]]:
    """A callback that passes on the cancellation of its own task only."""

    async def guarded(msg: Msg) -> None:
        try:
            await cb(msg)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            _log.warning("a handler on %s awaited something that was cancelled", msg.subject)

    return guarded
