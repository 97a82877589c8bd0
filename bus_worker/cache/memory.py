"""A cache in this process: the least used goes first, everything goes after its time."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

__all__ = ["MemoryCache"]

MAX_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 20_000
OVERHEAD = 300
"""Bytes an entry takes besides its value: name, tuple, place in the order."""


class MemoryCache:
    """Bounded by bytes and by entries."""

    keeps = True

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES, copy: str = "copy:"
    ) -> None:
        """Args: copy begins the names of second copies, which `clear` does not count."""
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._copy = copy
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._held = 0
        self._stored = 0
        self._bytes = 0

    def ready(self) -> bool:
        """Always."""
        return True

    async def get(self, name: str, limit: float) -> bytes | None:  # noqa: ARG002 - it never waits
        """The value if it is still good."""
        found = self._kept.get(name)
        if found is None:
            return None
        until, value = found
        if until <= time.monotonic():
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        return value

    async def get_or_lock(self, name: str, token: str, limit: float) -> tuple[bytes | None, bool]:  # noqa: ARG002
        """The value; nobody else could be at it: nobody else asks here."""
        return await self.get(name, limit), True

    async def hold(self, name: str, token: str) -> None:
        """There is no lock."""

    async def unlock(self, name: str, token: str) -> None:
        """There is no lock."""

    async def put(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        limit: float,  # noqa: ARG002 - it never waits
        *,
        unlock: tuple[str, str] | None = None,  # noqa: ARG002 - there is no lock
    ) -> None:
        """Keep them, at the cost of those that were used longest ago."""
        for name, value in values.items():
            self._drop(name)
            self._kept[name] = (time.monotonic() + ttl, value)
            self._held += len(value) + OVERHEAD
            self._stored += 1
            self._bytes += len(value)
        while self._held > self._max_bytes or len(self._kept) > self._max_entries:
            self._drop(next(iter(self._kept)))

    async def clear(self) -> int:
        """Forget everything."""
        count = sum(not name.startswith(self._copy) for name in self._kept)
        self._kept.clear()
        self._held = 0
        return count

    def figures(self) -> dict[str, Any]:
        """Values and bytes stored so far, and what is held now."""
        return {
            "kind": "memory",
            "errors": 0,
            "stored": self._stored,
            "bytes": self._bytes,
            "entries": len(self._kept),
            "held": self._held,
        }

    def _drop(self, name: str) -> None:
        found = self._kept.pop(name, None)
        if found is not None:
            self._held -= len(found[1]) + OVERHEAD
