"""From settings to the bus: who we are there, and a client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.settings import Settings

__all__ = ["address", "open_client"]


def address(settings: Settings, name: str = "bus-worker") -> Address:
    """Where the bus is, as the settings say."""
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


def _open_secret(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
