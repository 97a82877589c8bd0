"""No cache: nothing is kept, nothing is found."""

from collections.abc import Mapping
from typing import Any

__all__ = ["NoCache"]


class NoCache:
    """Forgets everything at once (`CACHE_ENABLED=false`)."""

    def ready(self) -> bool:
        """Never: nobody need compute a key."""
        return False

    async def get(self, name: str, limit: float) -> None:
        """Nothing."""

    async def put(self, values: Mapping[str, bytes], ttl: float, limit: float) -> None:
        """Nothing either."""

    async def clear(self) -> int:
        """There was nothing."""
        return 0

    def figures(self) -> dict[str, Any]:
        """Only what it is."""
        return {"kind": "none"}
