"""`setup`: what has to be there before the first worker starts: the model here, a bus that suits."""

import asyncio
import logging
from argparse import Namespace

from bus_worker.bus import connect
from bus_worker.cli.terminal import say
from bus_worker.connection import address
from bus_worker.embedded import MAX_PAYLOAD
from bus_worker.errors import SetupError
from bus_worker.messages import ModelInfo
from bus_worker.settings import Settings, load_settings
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

__all__ = ["prepare_model", "run", "short", "show_downloads"]

CONNECT_LIMIT = 3.0


def run(args: Namespace) -> int:
    """Fetch and verify the model, then look at the bus and make the streams there."""
    settings = load_settings()
    if not args.bus_only:
        prepare_model(settings)
    asyncio.run(_prepare_bus(settings, args.replicas))
    return 0


def prepare_model(settings: Settings) -> str:
    """Have the model of the pipeline here, whole; the name that it is served under.

    Raises:
        ModelUnavailable: it is not here and cannot be fetched; says what to do.
    """
    if "whisper" not in settings.pipeline:
        return settings.asked_model
    from bus_worker.model_store import find_model  # noqa: PLC0415 - needs the worker extra to fetch

    show_downloads()
    found = find_model(
        settings.whisper_model, model_dir=settings.model_dir, model_name=settings.model_name
    )
    say(f"model {short(found.info)}: {found.path}")
    return found.info.name


def short(model: ModelInfo) -> str:
    """A model's name and revision for people."""
    return f"{model.name} ({model.revision[:12]})" if model.revision else model.name


def show_downloads() -> None:
    """Tell when a download begins; the hub's library draws its own bar on a terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("bus_worker.model_store")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


async def _prepare_bus(settings: Settings, replicas: int | None) -> None:
    where = address(settings)
    async with connect(where, CONNECT_LIMIT) as bus:
        largest = bus.client.max_payload
        say(f"bus {where.shown}: takes messages of {largest} bytes")
        try:
            streams = await make_streams(
                bus.client,
                Subjects(settings.subject_prefix),
                settings.asked_model,
                replicas=replicas,
            )
        except SetupError as exc:
            wanted = min(settings.max_file_size, MAX_PAYLOAD)
            if replicas is not None:
                raise
            if largest < wanted:
                raise SetupError(
                    f"{exc.message}; or, for clips of up to {wanted} bytes, set max_payload: {MAX_PAYLOAD}"
                ) from exc
            say(f"audio of over {largest} bytes will not be taken: {exc.message}")
        else:
            for stream, keeps in streams:
                say(f"stream {stream}: keeps {keeps}")
            say(f"queues for {settings.asked_model}: where its jobs wait")
