"""Which model a caller means, and `GET /v1/models`: what the workers on the bus really serve."""

import asyncio
import re

from bus_worker.client import TranscribeClient
from bus_worker.errors import ModelNotFound, Unavailable
from bus_worker.settings import Settings
from gateway.openai.schemas import Model, ModelList

__all__ = ["find_model", "list_models", "model_on_the_bus"]

ASKING = 2.0
"""Seconds that the question who is there may take, the wait for a bus that is away included."""
NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What a worker's model may be called."""


def model_on_the_bus(name: str, settings: Settings) -> str | None:
    """The model to ask for: one of OpenAI's names means the default one, which is None.

    Raises:
        ModelNotFound: nothing could be served under this name.
    """
    if name in settings.openai_models:
        return None
    if not NAME.fullmatch(name):
        raise ModelNotFound(f"no worker serves {name[:100]!r}")
    return name


async def list_models(client: TranscribeClient) -> ModelList:
    """Every model that a worker serves now.

    Raises:
        Unavailable: the bus is away.
    """
    return ModelList(data=[Model(id=name) for name in await _served(client)])


async def find_model(client: TranscribeClient, settings: Settings, name: str) -> Model:
    """One model by its name, or by a name of OpenAI's that stands for it.

    Raises:
        ModelNotFound: no worker serves it.
        Unavailable: as `list_models`.
    """
    served = await _served(client)
    wanted = settings.chosen_model if name in settings.openai_models else name
    if wanted in served or (wanted is None and served):
        return Model(id=name)
    raise ModelNotFound(
        f"no worker serves {name[:100]!r}; served: {', '.join(served) or 'none'}", models=served
    )


async def _served(client: TranscribeClient) -> list[str]:
    try:
        async with asyncio.timeout(ASKING):
            workers = await client.workers()
    except TimeoutError:
        raise Unavailable("the bus is away; try again in a while") from None
    return sorted({worker.model for worker in workers})
