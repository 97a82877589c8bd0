"""One request as it arrived: who asks, by when, where the answer goes."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from nats.aio.msg import Msg

from bus_worker import subjects
from bus_worker.bus import header
from bus_worker.errors import BadRequest, BusWorkerError, DeadlineExceeded
from bus_worker.hardened import MALFORMED
from bus_worker.plugin import Draft
from bus_worker.tracing import read_traceparent

__all__ = ["Arrival", "read_headers", "request_id_of"]

LONGEST_DEADLINE = 3600.0
"""Seconds: a clock gone wrong must not hold a slot for ever."""
MAX_ID = 128


@dataclass(slots=True)
class Arrival:
    """One request on its way through this worker."""

    reply: str
    received: float
    request_id: str = ""
    call_id: str = ""
    deadline: float = 0.0
    heartbeat: float | None = None
    size: int = 0
    fetched: float | None = None
    """Seconds that its audio took to come, when a ticket stood for it."""
    at: float = field(default_factory=time.time)
    """Unix second at which it arrived."""
    asked_at: float | None = None
    """The same of when its caller began to ask for room, if it says so."""
    traceparent: str | None = None
    draft: Draft | None = None
    gave_up: "asyncio.Future[BusWorkerError]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def give_up(self, error: BusWorkerError) -> None:
        """End it with this error; the first one counts."""
        if not self.gave_up.done():
            self.gave_up.set_result(error)
        if self.draft is not None:
            self.draft.give_up()


def read_headers(arrival: Arrival, msg: Msg, request_timeout: float) -> None:
    """Fill it in from the headers.

    Raises:
        BadRequest: a header of ours that is not what it must be.
        DeadlineExceeded: the deadline has passed on the way.
    """
    arrival.request_id = request_id_of(msg)
    arrival.call_id = (header(msg, subjects.HEADER_CALL_ID) or secrets.token_hex(16))[:MAX_ID]
    arrival.traceparent = read_traceparent(header(msg, subjects.HEADER_TRACEPARENT))
    if header(msg, MALFORMED):
        raise BadRequest("the message's headers cannot be read")
    arrival.deadline = arrival.received + request_timeout
    beat = _number(msg, subjects.HEADER_HEARTBEAT)
    if beat is not None:
        if not 0.05 <= beat <= 3600:  # noqa: PLR2004 - below is a flood, above is never
            raise BadRequest(f"{subjects.HEADER_HEARTBEAT} must be 0.05 to 3600 seconds")
        arrival.heartbeat = beat
    deadline = _number(msg, subjects.HEADER_DEADLINE)
    if deadline is not None:
        left = min(deadline / 1000 - time.time(), LONGEST_DEADLINE)
        arrival.deadline = arrival.received + left
        if left <= 0:
            raise DeadlineExceeded(
                "the request's deadline had passed when it arrived (do the clocks of caller and worker agree?)"
            )
    asked_at = _number(msg, subjects.HEADER_ASKED_AT)
    if asked_at is not None:  # of another machine's clock: never later than here
        arrival.asked_at = min(arrival.at, max(asked_at / 1000, arrival.at - LONGEST_DEADLINE))
    kind = (header(msg, subjects.HEADER_CONTENT_TYPE) or subjects.CONTENT_TYPE).partition(";")[0]
    if kind.strip().lower() not in subjects.ACCEPTED_TYPES:
        raise BadRequest(f"Content-Type must be {subjects.CONTENT_TYPE}, not {kind[:80]!r}")


def request_id_of(msg: Msg) -> str:
    """The caller's id, else its inbox; without control characters: logs and terminals show it."""
    asked = header(msg, subjects.HEADER_REQUEST_ID) or msg.reply
    return "".join(char for char in asked[:MAX_ID] if char.isprintable())


def _number(msg: Msg, name: str) -> float | None:
    text = header(msg, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e15:  # noqa: PLR2004 - NaN and infinity fail this too
        raise BadRequest(f"header {name} must be a number, not {text[:40]!r}")
    return number
