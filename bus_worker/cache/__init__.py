"""Answers kept for a while: in Redis for all workers, in this process, or not at all.

A cache knows names and bytes; what they mean is `bus_worker.recall`'s. Nothing that goes wrong
with one ever fails a request: it is then slower, never wrong.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from bus_worker.cache.memory import MemoryCache
from bus_worker.cache.none import NoCache

__all__ = ["COPY", "LOCKED_FOR", "Cache", "MemoryCache", "NoCache", "open_cache"]


class Cache(Protocol):
    """Keeps values under names; loses them when it must, and never raises but where it says so."""

    keeps: bool
    """Whether it ever keeps anything."""

    def ready(self) -> bool:
        """Whether asking it may help now; costs nothing."""

    async def get(self, name: str, limit: float) -> bytes | None:
        """The value, or None; after `limit` seconds None in any case."""

    async def get_or_lock(self, name: str, token: str, limit: float) -> tuple[bytes | None, bool]:
        """The value; without one, whether it is the asker's to work out.

        It is not while another, with another token, has asked before and holds the lock. Where
        that cannot be told it is.
        """

    async def hold(self, name: str, token: str) -> None:
        """Keep the lock for another `LOCKED_FOR` seconds."""

    async def unlock(self, name: str, token: str) -> None:
        """Give the lock back if it is this token's."""

    async def put(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        limit: float,
        *,
        unlock: tuple[str, str] | None = None,
    ) -> None:
        """Keep values for `ttl` seconds; give up after `limit` seconds.

        Args:
            unlock: name and token of a lock to give back in the same breath.
        """

    async def clear(self) -> int:
        """Forget everything of ours; returns how many values there were, copies not counted.

        Raises:
            Unavailable: it cannot be reached.
        """

    def figures(self) -> dict[str, Any]:
        """What happened so far, as plain data."""


LOCKED_FOR = 2.0
"""Seconds that a lock outlives the last word of who holds it."""
COPY = "samples:"
"""Names that begin so hold a second copy of a value: `clear` does not count them twice."""


@asynccontextmanager
async def open_cache(*, enabled: bool, url: str | None, prefix: str) -> AsyncIterator[Cache]:
    """The cache that the settings ask for; one that is away does not fail the start.

    Args:
        url: of a Redis; without one, this process keeps its own.
        prefix: SUBJECT_PREFIX, so that two houses can share a Redis.

    Raises:
        BadSetting: the URL is not one of a Redis.
    """
    if not enabled:
        yield NoCache()
    elif url is None:
        yield MemoryCache(copy=COPY)
    else:
        from bus_worker.cache.redis import RedisCache  # noqa: PLC0415 - only who uses it needs it

        first = "transcription:" if prefix == "stt" else f"{prefix}:transcription:"
        async with RedisCache(url, first, copy=COPY, locked_for=LOCKED_FOR) as cache:
            yield cache
