"""Tells an HTTPS webhook of one event: one attempt, signed, to an address that was looked at first.

The name is resolved once, and the very address that was found good is connected to, so a name
that changes its mind gains nothing; the Host header, TLS and the certificate keep the name. No
redirect is followed and no proxy used. The signature is that of the Standard Webhooks
specification. Who calls this keeps the queue: `retry_after` says when to call again.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import re
import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import httpcore2

from bus_worker import __version__
from bus_worker.errors import BadRequest
from bus_worker.webhook_rules import Destination, WebhookRules, check_url

__all__ = ["BACK_OFF", "NotDelivered", "Webhooks", "retry_after"]

BACK_OFF = (5, 30, 120, 600, 1800, 7200, 18_000, 36_000)
"""Seconds after the first, second, … failure: nine attempts in 18 to 22 hours, while a result is kept (24)."""
LONGEST_ASKED = 3600.0
"""Seconds of `Retry-After` that are honoured."""

LIMIT = 5.0
"""Seconds that one attempt may take, from the look-up to the end of the answer."""
CONNECT_LIMIT = 2.0
"""Seconds after which the next of a name's addresses is tried."""
MOST_ADDRESSES = 3
MOST_ANSWER = 65_536
"""Bytes of an answer that are read; of a body none is used, but its sender may end in peace."""
MOST_AT_ONCE = 4096
MOST_LOOKUPS = 4

_ID = re.compile(r"[A-Za-z0-9_-]+")
_TOLD, _REDIRECTS, _GONE = range(200, 300), range(300, 400), 410
_ALWAYS = (
    ("Connection", "close"),
    ("Content-Type", "application/json"),
    ("User-Agent", f"bus-worker/{__version__}"),
)
_BROKEN = (
    TimeoutError,
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.RemoteProtocolError,
)

_log = logging.getLogger(__name__)


class NotDelivered(Exception):
    """The webhook was not told. The message is for people, without the URL or the answer's text.

    Attributes:
        again: Whether another attempt may succeed.
        asked: Seconds that the receiver asked to wait, where it did.
    """

    def __init__(self, why: str, *, again: bool, asked: float | None = None) -> None:
        super().__init__(why)
        self.again = again
        self.asked = asked


def retry_after(attempt: int, asked: float | None = None) -> float | None:
    """Seconds to wait after attempt number `attempt` (from 1) failed, or None to give up.

    Up to a fifth is added by chance, so that what failed together does not come back together.

    Args:
        attempt: How many attempts were made.
        asked: `NotDelivered.asked`; a receiver may ask for more patience, not for less.
    """
    if attempt > len(BACK_OFF):
        return None
    waits = BACK_OFF[attempt - 1] * random.uniform(1, 1.2)  # noqa: S311 - no secret
    return max(waits, min(asked or 0.0, LONGEST_ASKED))


class Webhooks:
    """Makes attempts, several at once if asked; keeps what certificates are checked against."""

    def __init__(self, rules: WebhookRules) -> None:
        """Loads the system's certificate authorities (SSL_CERT_FILE names others)."""
        self._rules = rules
        self._trust = ssl.create_default_context()
        # Threads of our own: a caller's slow name server shall not fill the pool that all use.
        self._lookups = ThreadPoolExecutor(MOST_LOOKUPS, thread_name_prefix="webhook-lookup")

    def close(self) -> None:
        """Take on no more look-ups."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def deliver(
        self, url: str, body: bytes, *, job_id: str, kind: str, attempt: int = 1
    ) -> None:
        """Post `body`, which is JSON, to `url`; a receiver that answers 2xx has been told.

        Args:
            url: What the caller gave; it is checked again, for rules change.
            body: Sent and signed as it is.
            job_id: With `kind`, the event's id (`webhook-id`), the same at every attempt.
            kind: What happened to the job, one word.
            attempt: Counted from 1, for the receiver and the log.

        Raises:
            NotDelivered: the attempt failed; says whether another may succeed.
        """
        headers = [*self._signed(f"{_word(job_id)}-{_word(kind)}", body)]
        headers += [("Stt-Job-Id", job_id), ("Stt-Event", kind), ("Stt-Attempt", str(attempt))]
        try:
            await self._attempt(url, headers, body)
        except NotDelivered as exc:
            _log.warning("webhook for job %s: attempt %d failed: %s", job_id, attempt, exc)
            raise
        _log.info("webhook for job %s: delivered at attempt %d", job_id, attempt)

    async def _attempt(self, url: str, headers: list[tuple[str, str]], body: bytes) -> None:
        try:
            to = check_url(url, self._rules)
        except BadRequest as exc:
            raise NotDelivered(exc.message, again=False) from exc
        exchange = _Exchange(to, self._trust)
        try:
            async with asyncio.timeout(LIMIT):
                await exchange.run(await self._addresses(to), headers, body)
        except _BROKEN as exc:
            if not exchange.status:  # else only the rest of its answer is missing
                raise NotDelivered(_trouble(to, exc), again=True) from exc
        _judge(to, exchange.status, exchange.asked)

    def _signed(self, event_id: str, body: bytes) -> Iterable[tuple[str, str]]:
        """The headers of the Standard Webhooks specification; no signature without a secret."""
        now = str(int(time.time()))
        yield from (("webhook-id", event_id), ("webhook-timestamp", now))
        if self._rules.key is not None:
            signed = f"{event_id}.{now}.".encode() + body
            mac = hmac.digest(self._rules.key, signed, hashlib.sha256)
            yield "webhook-signature", f"v1,{base64.b64encode(mac).decode()}"

    async def _addresses(self, to: Destination) -> list[str]:
        """What the host stands for, as far as it may be reached; the only look-up of an attempt."""
        if to.address:
            return [str(to.address)]  # `check_url` permitted it
        loop = asyncio.get_running_loop()
        look_up = partial(socket.getaddrinfo, to.host, to.port, type=socket.SOCK_STREAM)
        try:
            found = await loop.run_in_executor(self._lookups, look_up)
        except socket.gaierror as exc:  # may be the resolver's trouble, or a name still to come
            raise NotDelivered(f"{to.host} is not found", again=True) from exc
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        permitted = [a for a in addresses if self._rules.permits(to.host, ip_address(a))]
        if not permitted:  # which address it was is not told: a caller could map the network by it
            raise NotDelivered(f"{to.host} stands for no public address", again=False)
        return permitted[:MOST_ADDRESSES]


@dataclass
class _Exchange:
    """One request and its answer, over one connection to an address that was found good."""

    to: Destination
    trust: ssl.SSLContext
    status: int = 0
    """Of the answer; 0 until its head has come."""
    asked: float | None = None

    async def run(self, addresses: list[str], headers: list[tuple[str, str]], body: bytes) -> None:
        """Send the request, read the answer; whatever happens, leave nothing open."""
        to = self.to
        url = httpcore2.URL(scheme=to.scheme, host=to.host, port=to.port, target=to.target)
        plain = stream = await _connected(addresses, to.port)
        try:
            if to.scheme == "https":
                stream = await plain.start_tls(self.trust, server_hostname=to.host)
            connection = httpcore2.AsyncHTTP11Connection(url.origin, _Bounded(stream))
            headers = [("Host", to.place), *_ALWAYS, *headers]
            async with connection.stream("POST", url, headers=headers, content=body) as response:
                self.status, self.asked = response.status, _asked(response.headers)
                async for _ in response.aiter_stream():
                    pass  # its sender may end in peace
        finally:
            await plain.aclose()


async def _connected(addresses: list[str], port: int) -> httpcore2.AsyncNetworkStream:
    """A connection to the first address that takes one."""
    network = httpcore2.AnyIOBackend()
    *earlier, last = addresses
    for address in earlier:
        try:
            return await network.connect_tcp(address, port, timeout=CONNECT_LIMIT)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
            _log.debug("webhook: %s takes no connection: %r", address, exc)
    return await network.connect_tcp(last, port)


class _Bounded(httpcore2.AsyncNetworkStream):
    """A connection that ends after so much of an answer, and lets others run while it comes.

    Without the second, 64 KB of `100 Continue` or of one-byte chunks would keep the event loop.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MOST_ANSWER

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - theirs
        await asyncio.sleep(0)
        piece = min(max_bytes, MOST_AT_ONCE, self._left)
        data = await self._stream.read(piece, timeout) if piece else b""
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - theirs
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _asked(headers: list[tuple[bytes, bytes]]) -> float | None:
    """`Retry-After` in seconds; that of a date is left, for its clock is not ours."""
    found = [value for name, value in headers if name.lower() == b"retry-after"]
    return float(found[0]) if found and re.fullmatch(rb"\d{1,9}", found[0]) else None


def _judge(to: Destination, status: int, asked: float | None) -> None:
    """Whether an answer means that the receiver was told, and if not, whether it may yet be.

    A redirect and 410 are the receiver's word that nothing lives here. Every other refusal may
    be one of an hour, a deployment or a wrong secret, and a further attempt costs little.
    """
    if status in _TOLD:
        return
    if status in _REDIRECTS:
        raise NotDelivered(
            f"{to.host} answered {status}, a redirect, and none is followed", again=False
        )
    raise NotDelivered(f"{to.host} answered {status}", again=status != _GONE, asked=asked)


def _trouble(to: Destination, exc: Exception) -> str:
    """What went wrong on the way, in words of ours."""
    if isinstance(exc, TimeoutError | httpcore2.TimeoutException):
        return f"{to.host} did not answer within {LIMIT:g} s"
    if isinstance(exc.__cause__, ssl.SSLCertVerificationError):
        return f"the certificate of {to.host} is not trusted, or is not for that name"
    if isinstance(exc.__cause__, ssl.SSLError):
        return f"{to.host} does not speak TLS as we do"
    if isinstance(exc, httpcore2.ConnectError):
        return f"{to.host} takes no connection"
    return f"{to.host} broke off, or did not speak HTTP"


def _word(text: str) -> str:
    """Text that is part of an event's id: a dot in it would let one signature fit two events."""
    if not _ID.fullmatch(text):
        raise ValueError(f"{text!r} may hold letters, digits, '_' and '-' only")
    return text
