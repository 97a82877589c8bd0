"""The one connection: connect, reconnect, watch, leave. nats-py's errors become ours here.

With nats-py 2.16 it stands on `HardenedClient`, elsewhere on the stock class (a caller needs none
of the credits that make silence costly).
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.errors import BusWorkerError, DeadlineExceeded, Failed, TooLarge, Unavailable
from bus_worker.hardened import REFUSED, HardenedClient, Refused

__all__ = [
    "HEADROOM",
    "SILENT_AFTER",
    "Address",
    "Bus",
    "Forbidden",
    "bus_errors",
    "connect",
    "forbidden",
    "header",
    "may_answer",
]

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2
RECONNECT_WAIT = 0.25
WATCH_EVERY = 5.0
RTT_TIMEOUT = 5
SILENT_AFTER = WATCH_EVERY + RTT_TIMEOUT + 1
"""Seconds without an answer that a bus which is well never reaches: the watchdog asks more often."""
HEADROOM = 4096
"""Bytes of a message kept for headers, which the server counts as payload."""
TELL_EVERY = 30.0
"""Seconds between two log lines about a bus that is awaited for ever."""

Listener = Callable[[], Awaitable[None]]


class Forbidden(Unavailable):
    """The bus does not let this user do that."""

    retry = False


def _client_class() -> type[Client]:
    """Ours where its overrides fit the installed nats-py."""
    return HardenedClient if version("nats-py").startswith("2.16.") else Client


@dataclass(frozen=True, slots=True)
class Address:
    """Where the bus is and who we are there."""

    servers: tuple[str, ...] = ("nats://localhost:4222",)
    name: str = "bus-worker"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    inbox_prefix: str = "_INBOX"

    @property
    def shown(self) -> str:
        """The servers without user names, passwords and tokens."""
        return ", ".join(
            f"{scheme}://{rest.rpartition('@')[2]}" if rest else scheme.rpartition("@")[2]
            for scheme, _, rest in (server.partition("://") for server in self.servers)
        )

    def options(self) -> dict[str, Any]:
        """What `Client.connect` takes for it."""
        options: dict[str, Any] = {
            "servers": list(self.servers),
            "name": self.name,
            "inbox_prefix": self.inbox_prefix.encode(),
        }
        if self.user:
            options |= {"user": self.user, "password": self.password}
        if self.token:
            options["token"] = self.token
        if self.creds:
            options["user_credentials"] = str(self.creds)
        if self.nkey:
            options["nkeys_seed"] = str(self.nkey)
        if self.ca or self.cert:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
            options["tls"] = context
        return options


class Bus:
    """A connection that comes back by itself, and says when it is lost, back or gone for good."""

    def __init__(self) -> None:
        self.client: Client = _client_class()()
        self.on_lost: list[Listener] = []
        self.on_back: list[Listener] = []
        self.gone = asyncio.Event()
        """Set when nats-py has given up for good: leave the process."""
        self.last_error: Exception | None = None
        self._refused: asyncio.Future[Exception] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._address = Address()
        self._endless = False
        self._told = float("-inf")
        self._refusals: set[str] = set()
        self._heard = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return bool(self.client.is_connected)

    def silent_for(self) -> float:
        """Seconds since the server has last answered a question."""
        return time.monotonic() - self._heard

    def unheard(self) -> str | None:
        """Why we do not hear what we should: the server does not let us listen; None where it does."""
        client = self.client
        return (
            next(iter(client.unheard.values()), None)
            if isinstance(client, HardenedClient)
            else None
        )

    def deaf(self) -> bool:
        """Whether a subscription's task has ended while the subscription stands: what comes on it is never read."""
        tasks = [sub._wait_for_msgs_task for sub in self.client._subs.values()]  # noqa: SLF001 - told nowhere else
        return any(task is not None and task.done() for task in tasks)

    async def open(self, address: Address, limit: float | None = 10.0) -> None:
        """Connect; keeps trying for `limit` seconds (None: for ever).

        Raises:
            Unavailable: no server by then, or one that refuses us (at once); says which.
        """
        self._address, self._endless = address, limit is None
        self._refused = refused = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._connect(address))
        try:
            waiting: set[asyncio.Future[Any]] = {task, refused}
            done, _ = await asyncio.wait(
                waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
            if task in done:
                task.result()
                self._heard = time.monotonic()
                self._watch = asyncio.create_task(self._watching(), name="bus-watchdog")
                return
        except (OSError, nats_errors.Error, ValueError) as exc:
            raise Unavailable(f"cannot connect to the bus at {address.shown}: {exc}") from exc
        finally:
            self._refused = None
            while not task.done():
                # Once more: asyncio's `wait_for` up to 3.11 swallows one that meets a refused connection.
                task.cancel()
                await asyncio.wait({task}, timeout=0.1)
            if self._watch is None:
                await self._hang_up()
        # What the server said, not the reset connection that comes after it.
        reason = refused.result() if refused.done() else self.last_error or "no answer"
        raise Unavailable(
            f"cannot connect to the bus at {address.shown}: {reason}; is nats-server running there,"
            " and are NATS_URL and its credentials right?"
        )

    async def _connect(self, address: Address) -> None:
        await self.client.connect(
            **address.options(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type] # it only sleeps on it
            connect_timeout=CONNECT_TIMEOUT,
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

    async def unsubscribe(self, subs: list[Subscription]) -> None:
        """End these subscriptions and empty the list; where the connection is gone they have ended."""
        for sub in subs:
            try:
                await sub.unsubscribe()
            except nats_errors.Error as exc:
                _log.debug("unsubscribe failed: %s", exc)
        subs.clear()

    async def confirmed(self) -> bool:
        """Whether the server has read all that was written until now."""
        try:
            await self.client.rtt(RTT_TIMEOUT)
        except (nats_errors.Error, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Leave: everything written so far goes out first, within a bound."""
        if self._watch is None:
            return
        self._watch.cancel()
        await asyncio.wait({self._watch})
        self.on_lost.clear()
        self.on_back.clear()
        if self.connected:
            with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
                await self.client.flush(2)
        await self._hang_up()

    async def _hang_up(self) -> None:
        # nats-py's close can fail where the socket is already gone: there is nothing left to lose.
        if self.client._flush_queue is None:  # noqa: SLF001 - it never came to connecting
            return
        with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
            await asyncio.wait_for(self.client.close(), 5)

    async def _watching(self) -> None:
        """Prove every few seconds that messages still come in; reconnect when they do not."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            if not self.connected:
                task = self.client._reconnection_task  # noqa: SLF001 - it can die of an unforeseen exception
                if self.client.is_closed or (task is not None and task.done()):
                    _log.error("the bus connection is gone for good")
                    self.gone.set()
                continue
            try:
                await self.client.rtt(RTT_TIMEOUT)
                self._heard = time.monotonic()
            except (nats_errors.Error, OSError, TimeoutError):
                if self.connected:
                    _log.warning("the bus is silent; reconnecting")
                    await self.client.force_reconnect()

    async def _on_error(self, error: Exception) -> None:
        self.last_error = error
        text = str(error).lower()
        if "permissions violation" in text:
            if text not in self._refusals:  # once, not at each try
                _log.error("the bus refuses: %s", error)
            self._refusals.add(text)
        elif isinstance(error, nats_errors.SlowConsumerError):
            _log.error("the bus dropped messages for %s: too many unread", error.subject)
        else:
            self._tell(error)
        refusal = (
            "authorization" in text
            or "authentication" in text
            or isinstance(error, ssl.SSLCertVerificationError)
        )
        if self._refused is not None and not self._refused.done() and refusal:
            self._refused.set_result(error)

    def _tell(self, error: Exception) -> None:
        """Every failed attempt ends here, four a second; who waits for ever is told now and then."""
        if self._endless and not self.connected and time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            _log.warning("no bus at %s: %s; trying on", self._address.shown, error)
        else:
            _log.debug("bus: %s", error)

    async def _on_disconnected(self) -> None:
        if isinstance(self.client, HardenedClient):
            self.client.forget_unsent_subscriptions()
        self._refusals.clear()
        if self.client.is_closed:
            return
        self._told = time.monotonic()
        _log.warning("bus lost; reconnecting")
        await _tell(self.on_lost)

    async def _on_reconnected(self) -> None:
        self._heard = time.monotonic()
        _log.warning(
            "bus back at %s", getattr(self.client.connected_url, "netloc", "?").rpartition("@")[2]
        )
        await _tell(self.on_back)

    async def _on_closed(self) -> None:
        self.gone.set()


async def _tell(listeners: list[Listener]) -> None:
    """Call each; one that fails must not end nats-py's reconnect task."""
    for listener in list(listeners):
        try:
            await listener()
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a listener on the bus failed")


@asynccontextmanager
async def connect(address: Address, limit: float | None = 10.0) -> AsyncIterator[Bus]:
    """A bus connection for the length of a block (see `Bus.open`)."""
    bus = Bus()
    await bus.open(address, limit)
    try:
        yield bus
    finally:
        await bus.close()


@contextlib.contextmanager
def bus_errors() -> Iterator[None]:
    """Turn nats-py's exceptions inside the block into ours."""
    try:
        yield
    except BusWorkerError:
        raise
    except Refused as exc:
        raise Forbidden(str(exc)) from exc
    except nats_errors.MaxPayloadError as exc:
        raise TooLarge(
            "the message is larger than the bus takes; raise max_payload on nats-server or send less"
        ) from exc
    except (nats_errors.TimeoutError, TimeoutError) as exc:
        raise DeadlineExceeded("the bus did not answer in time") from exc
    except (
        nats_errors.ConnectionClosedError,
        nats_errors.ConnectionDrainingError,
        nats_errors.ConnectionReconnectingError,
        nats_errors.OutboundBufferLimitError,
        nats_errors.NoRespondersError,
        nats_errors.NoServersError,
        OSError,
    ) as exc:
        raise Unavailable("the bus is away") from exc
    except nats_errors.Error as exc:
        _log.error("the bus refused: %s", exc)
        raise Failed("the bus refused; the log has the cause") from exc


def header(msg: Msg, name: str) -> str | None:
    """A header by its exact spelling, else whatever its case (other clients write it as they like)."""
    headers: dict[str, str] = msg.headers or {}
    if name in headers:
        return headers[name]
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


def forbidden(msg: Msg) -> Forbidden | None:
    """Why there is no answer, where the server did not let the question through."""
    why = header(msg, REFUSED)
    return None if why is None else Forbidden(why)


def may_answer(reply: str) -> bool:
    """Whether a reply subject is an inbox: no caller makes us publish anywhere else."""
    return reply.startswith("_INBOX.") and "*" not in reply and ">" not in reply
