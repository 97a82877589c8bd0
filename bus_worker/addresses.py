"""Addresses and names as settings write them: checked, and shown without their secrets."""

import re
from urllib.parse import urlsplit

from pydantic import SecretStr

__all__ = [
    "checked_model",
    "checked_origins",
    "checked_redis",
    "checked_servers",
    "scheme_and_rest",
    "shown_url",
]


def checked_redis(value: SecretStr | None) -> SecretStr | None:
    """Only what leads to a Redis; the value itself may hold a password and is not told."""
    if value is None:
        return None
    try:
        parts = urlsplit(value.get_secret_value())
        whole = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        whole = False
    if not whole or parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must be redis://[:password@]host[:port][/db], rediss://… or unix://path")
    return value


def checked_servers(value: tuple[str, ...]) -> tuple[str, ...]:
    """Only what leads to a bus: elsewhere a worker would try for ever."""
    kinds = {_bus_scheme(url) in {"ws", "wss"} for url in value}
    if len(kinds) != 1:
        raise ValueError("must be one server or more, either all ws:// and wss:// or none of them")
    return value


def _bus_scheme(url: str) -> str:
    """The scheme of a bus's address; that of one without any is `nats`."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or none below 65536
        whole = False
    if whole and parts.scheme in {"nats", "tls"}:
        # What follows a `/`, `?` or `#` would be half of a password written as it is.
        whole = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if not whole or parts.scheme not in {"nats", "tls", "ws", "wss"} or re.search(r"\s", url):
        raise ValueError(
            "must be host[:port], alone or after nats://, tls://, ws:// or wss://"
            " (user:password@ or token@ may stand before the host; the port is 1 to 65535)"
        )
    return parts.scheme


def shown_url(url: str) -> str:
    """A URL without user, password and options, for logs and people; it may lack its scheme."""
    scheme, rest = scheme_and_rest(url)
    plain = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in plain:  # which part is the secret nobody can tell
        return f"{scheme}***"
    _, at, where = plain.rpartition("@")
    return f"{scheme}{'***' * bool(at)}{at}{where}"


def scheme_and_rest(url: str) -> tuple[str, str]:
    """`redis://`, and what comes behind it; an address may lack its scheme."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    scheme = found[0] if found else ""
    return scheme, url.removeprefix(scheme)


def checked_model(value: str | None) -> str | None:
    """Only what can be part of a subject."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise ValueError("must be a model's name: letters, digits, '.', '_' and '-' only")
    return value


def checked_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """As browsers write origins; one written otherwise would let nobody in, and nobody would be told."""
    plain = tuple(origin.lower().removesuffix("/") for origin in value)
    if not all(re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+", origin) for origin in plain):
        raise ValueError("must be *, or origins such as https://app.example, without a path")
    return plain
