"""No cache: nothing is kept, nothing is found."""

from collections.abc import Mapping
from typing import Any

__all__ = ["NoCache"]


class NoCache:
    """Forgets everything at once (`CACHE_ENABLED=false`)."""

    keeps = False

    def ready(self) -> bool:
        """Never: nobody need compute a key."""
        return False

    async def get(self, name: str, limit: float) -> None:
        """Nothing."""

    async def get_or_lock(self, name: str, token: str, limit: float) -> tuple[None, bool]:  # noqa: ARG002
        """Nothing; it is the asker's to work out."""
        return None, True

    async def hold(self, name: str, token: str) -> None:
        """There is no lock."""

    async def unlock(self, name: str, token: str) -> None:
        """There is no lock."""

    async def put(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        limit: float,
        *,
        unlock: tuple[str, str] | None = None,
    ) -> None:
        """Nothing either."""

    async def clear(self) -> int:
        """There was nothing."""
        return 0

    def figures(self) -> dict[str, Any]:
        """Only what it is."""
        return {"kind": "none"}
