"""From settings to the bus: who we are there, and a client."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.errors import BadSetting
from bus_worker.settings import Settings

__all__ = ["address", "make_client", "open_client"]

FILES = ("nats_ca", "nats_cert", "nats_key", "nats_creds", "nats_nkey")


def address(settings: Settings, name: str = "bus-worker") -> Address:
    """Where the bus is, as the settings say.

    Raises:
        BadSetting: a file that they name cannot be read, or is of no use.
    """
    _check_files(settings)
    return Address(
        servers=settings.nats_url,
        name=name,
        user=settings.nats_user,
        password=_open_secret(settings.nats_password),
        token=_open_secret(settings.nats_token),
        creds=settings.nats_creds,
        nkey=settings.nats_nkey,
        ca=settings.nats_ca,
        cert=settings.nats_cert,
        key=settings.nats_key,
        inbox_prefix=settings.nats_inbox_prefix,
    )


@asynccontextmanager
async def open_client(
    settings: Settings, *, limit: float = 10.0
) -> AsyncIterator[TranscribeClient]:
    """A client on a connection of its own; connecting may take `limit` seconds.

    Raises:
        Unavailable: no bus there; says where, and why.
    """
    async with (
        connect(address(settings), limit) as bus,
        TranscribeClient(
            nc=bus.client,
            model=settings.chosen_model,
            timeout=settings.request_timeout,
            prefix=settings.subject_prefix,
        ) as client,
    ):
        yield client


def make_client(settings: Settings, name: str) -> TranscribeClient:
    """A client that is not open yet, for those who start before their bus does.

    Args:
        name: what the bus's own tools call its connection.

    Raises:
        BadSetting: as `address`.
    """
    return TranscribeClient(
        address(settings, name),
        model=settings.chosen_model,
        timeout=settings.request_timeout,
        prefix=settings.subject_prefix,
    )


def _check_files(settings: Settings) -> None:
    """Say now what nats-py would say of a connection, again and again."""
    for name in FILES:
        path = getattr(settings, name)
        if path is None:
            continue
        try:
            with path.open("rb"):
                pass
        except OSError as exc:
            raise _bad(
                name, settings, f"cannot be read: {(exc.strerror or str(exc)).lower()}"
            ) from exc
    if settings.nats_key and not settings.nats_cert:
        raise _bad("nats_key", settings, "is of no use without its certificate, NATS_CERT")
    if settings.nats_ca:
        try:
            ssl.create_default_context(cafile=settings.nats_ca)
        except ssl.SSLError as exc:
            raise _bad("nats_ca", settings, "holds no certificate") from exc


def _bad(name: str, settings: Settings, why: str) -> BadSetting:
    variable = name.upper()
    return BadSetting(f"{variable}={str(getattr(settings, name))!r}: {why}", variable=variable)


def _open_secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
