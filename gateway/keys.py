"""Who may come in, and how many uploads of one key at once."""

import hashlib
import hmac
from collections import Counter

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bus_worker.errors import RateLimited, Unauthorized
from gateway import page

__all__ = ["OPEN", "Keys"]

OPEN = frozenset({"/", "/live", "/ready", *page.ADDRESSES})
"""Addresses that need no key; the page is one, because it is where a person gives theirs."""


class Keys:
    """ASGI middleware: asks for a key where one is set, counts uploads in hand by key.

    The request's state gets `caller`: a word of each key's own, from which it cannot be guessed.
    """

    def __init__(self, app: ASGIApp, key: SecretStr | None, most: int) -> None:
        """Args: key may hold several, comma-separated; `most` uploads of each at once."""
        self._app = app
        texts = key.get_secret_value().split(",") if key else []
        # Hashed, all are of one length, and comparing takes the same time whatever was given.
        self._keys = [_hashed(text.strip().encode()) for text in texts if text.strip()]
        self._callers = {key: _word(key) for key in self._keys}
        self._most = most
        self._in_hand: Counter[bytes] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        who = self._who(Headers(scope=scope))
        scope["state"]["caller"] = self._callers.get(who, "")
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._in_hand[who] >= self._most:
            whose = "of this key " if self._keys else ""
            raise RateLimited(
                f"{self._most} uploads {whose}are in hand already; try again when one is answered"
            )
        self._in_hand[who] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_hand[who] -= 1

    def _who(self, headers: Headers) -> bytes:
        """The caller's key, hashed; nobody's where none is set.

        Raises:
            Unauthorized: none was shown, or a wrong one.
        """
        if not self._keys:
            return b""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = headers.get("x-api-key") or (bearer.strip() if kind.lower() == "bearer" else "")
        if not shown:
            raise Unauthorized(
                "an API key is needed: X-API-Key: <key>, or Authorization: Bearer <key>"
            )
        hashed = _hashed(shown.encode("latin-1"))  # the bytes as they came
        # Every key is compared, so that the time does not tell which one is near.
        matching = [key for key in self._keys if hmac.compare_digest(key, hashed)]
        if not matching:
            raise Unauthorized("this API key is wrong")
        return matching[0]


def _hashed(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _word(hashed: bytes) -> str:
    # What is made of it (jobs' ids) is seen by others: slow, so that no weak key is found by trying.
    return hashlib.pbkdf2_hmac("sha256", hashed, b"bus-worker caller", 50_000).hex()
