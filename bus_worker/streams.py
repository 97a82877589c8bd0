"""The streams that the bus keeps for us: made by `setup`, which is an admin's; others only use them."""

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from bus_worker.errors import SetupError
from bus_worker.subjects import Subjects

__all__ = ["make_streams"]

MAX_AGE = 15 * 60.0
"""Seconds after which audio that nobody erased is gone."""
MAX_BYTES = 1 << 30
"""Bytes of audio kept at once."""
MAX_CHUNK = 1 << 20
NO_JETSTREAM = frozenset({None, 10039, 10076})
"""Errors of a server without it: nobody answers, not for this account, switched off."""


async def make_streams(nc: Client, names: Subjects) -> str:
    """Make the stream for large audio, or put right what is wrong with it; its name.

    What an admin may well have chosen (bytes, age, replicas, placement) stays as it is.

    Raises:
        SetupError: the bus has no JetStream, or refuses; says what to do.
    """
    name = names.claims_stream
    try:
        await _make(nc.jetstream(), names)
    except js_errors.APIError as exc:
        if exc.err_code in NO_JETSTREAM:
            raise SetupError(
                "the bus keeps no large audio: enable jetstream on nats-server"
            ) from exc
        raise SetupError(f"the bus refuses stream {name}: {exc.description}") from exc
    except (nats_errors.Error, TimeoutError, OSError) as exc:
        raise SetupError(
            f"the bus did not answer about stream {name}; may this user publish on $JS.API.>?"
        ) from exc
    return name


async def _make(js: JetStreamContext, names: Subjects) -> None:
    name, subjects = names.claims_stream, [names.claims]
    needed = {
        "discard": DiscardPolicy.NEW,  # full is the sender's trouble, never that of a live ticket
        "max_msgs_per_subject": 1,  # so that a chunk is erased by writing over it
        "max_msg_size": MAX_CHUNK,
        "allow_direct": True,
    }
    try:
        there = (await js.stream_info(name)).config
    except js_errors.NotFoundError:
        await js.add_stream(
            StreamConfig(
                name=name,
                subjects=subjects,
                description="Audio too large for a message",
                storage=StorageType.FILE,
                max_age=MAX_AGE,
                max_bytes=MAX_BYTES,
            ),
            **needed,
        )
        return
    if there.subjects != subjects:
        raise SetupError(
            f"stream {name} is there for {', '.join(there.subjects or ['nothing'])}:"
            " remove it, or choose another SUBJECT_PREFIX"
        )
    bounds = {"max_age": there.max_age or MAX_AGE}
    if (there.max_bytes or -1) < 0:
        bounds["max_bytes"] = MAX_BYTES
    await js.update_stream(there, **needed, **bounds)
