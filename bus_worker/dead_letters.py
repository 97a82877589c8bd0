"""Jobs that failed, kept with the reason and the audio: looked at, dropped, or handed in again."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from nats.aio.client import Client

from bus_worker.claim_check import ClaimCheck, Deposit
from bus_worker.errors import Failed, JobNotFound, TooLarge
from bus_worker.jetstream import JetStream, kept_for
from bus_worker.messages import pack, unpack
from bus_worker.subjects import Subjects

__all__ = ["DeadLetter", "DeadLetters"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that failed."""

    job_id: str
    at: float
    reason: dict[str, Any]
    """The error, as in a reply."""
    record: dict[str, Any]
    """What was known of the job at its end."""
    message: bytes
    """The job's own, with its audio or a ticket for it; empty where it was too large to be kept."""

    @classmethod
    def from_map(cls, data: Mapping[str, Any]) -> Self:
        """As it was kept; keys that this version does not know are ignored.

        Raises:
            Failed: it is not what we keep.
        """
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except KeyError as exc:
            raise Failed("a dead letter cannot be read; are all of one version?") from exc

    def to_map(self) -> dict[str, Any]:
        """As it is kept."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class DeadLetters:
    """Keeps them, one a job, for as long as their stream does: a week."""

    def __init__(self, nc: Client, names: Subjects) -> None:
        self._js = JetStream(nc)
        self._names = names
        self._checks = ClaimCheck(nc, names)

    async def keep(self, letter: DeadLetter) -> None:
        """Keep one; of a message that leaves no room for the reason beside it, only the reason.

        Raises:
            NoStream, Unavailable, Busy: the bus did not take it.
        """
        try:
            await self._write(letter.job_id, pack(letter.to_map()))
        except TooLarge:
            await self._write(letter.job_id, pack(replace(letter, message=b"").to_map()))

    async def all(self) -> AsyncGenerator[DeadLetter]:
        """Every one, the oldest first; read one by one, as each may hold a clip.

        Raises:
            NoStream, Unavailable: the bus keeps none, or did not answer.
        """
        sequence = 1
        while (kept := await self._js.following(*self._everywhere, sequence)) is not None:
            if kept.data:
                yield DeadLetter.from_map(unpack(kept.data))
            sequence = kept.sequence + 1

    async def get(self, job_id: str) -> DeadLetter:
        """One job's.

        Raises:
            JobNotFound: there is none.
            BadRequest: it is no job's id.
            NoStream, Unavailable: as `all`.
        """
        kept = await self._js.last(self._names.dead_stream, self._names.dead(job_id))
        if kept is None or not kept.data:
            raise JobNotFound("there is no dead letter of this job, or not any more")
        return DeadLetter.from_map(unpack(kept.data))

    async def drop(self, job_id: str) -> None:
        """Erase one, and its audio.

        Raises:
            JobNotFound, BadRequest, NoStream, Unavailable: as `get`.
        """
        claim = (await self.get(job_id)).record.get("claim")
        if claim is not None:
            await self._checks.erase(Deposit(str(claim["id"]), int(claim["chunks"])))
        await self.forget(job_id)

    async def forget(self, job_id: str) -> None:
        """Erase one, whose audio is somebody else's by now."""
        await self._write(job_id, b"", kept_for(1))

    @property
    def _everywhere(self) -> tuple[str, str]:
        return self._names.dead_stream, f"{self._names.prefix}.dead.*"

    async def _write(
        self, job_id: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        subject = self._names.dead(job_id)
        await self._js.write(self._names.dead_stream, subject, payload, headers)
