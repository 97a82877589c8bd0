"""Jobs that failed, kept with the reason and the audio."""

from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from bus_worker.jetstream import JetStream
from bus_worker.messages import pack
from bus_worker.subjects import Subjects

__all__ = ["DeadLetter", "DeadLetters"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that failed."""

    job_id: str
    at: float
    reason: dict[str, Any]
    record: dict[str, Any]
    message: bytes


class DeadLetters:
    """Keeps them."""

    def __init__(self, nc: Client, names: Subjects) -> None:
        self._js = JetStream(nc)
        self._names = names

    async def keep(self, letter: DeadLetter) -> None:
        """Keep one."""
        data = {name: getattr(letter, name) for name in DeadLetter.__dataclass_fields__}
        await self._js.write(self._names.dead_stream, self._names.dead(letter.job_id), pack(data))
