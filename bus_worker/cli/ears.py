"""What `transcribe` hears with: workers over the bus."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bus_worker.connection import open_client
from bus_worker.messages import Transcript
from bus_worker.settings import load_settings

__all__ = ["Ears", "Wish", "over_the_bus"]

CONNECT_LIMIT = 3.0
"""Seconds: a person waits."""
MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of every file."""

    model: str | None = None
    timeout: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ears:
    """A clip's bytes and its format's name in, a transcript out; so many at once."""

    hear: Callable[[bytes, str | None], Awaitable[Transcript]]
    at_once: int


@asynccontextmanager
async def over_the_bus(wish: Wish, *, several: bool) -> AsyncIterator[Ears]:
    """Workers that the settings' bus has.

    Raises:
        Unavailable: no bus there; says where, and why.
    """
    async with open_client(load_settings(), limit=CONNECT_LIMIT) as client:

        async def hear(audio: bytes, kind: str | None) -> Transcript:
            return await client.transcribe(
                audio, timeout=wish.timeout, model=wish.model, format=kind, **wish.options
            )

        # One more than there is room for: waiting its turn is part of a file's timeout.
        workers = await client.workers() if several else []
        room = sum(worker.slots or 1 for worker in workers) + 1
        yield Ears(hear, min(room, MOST_AT_ONCE))
