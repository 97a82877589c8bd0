"""Every name on the bus, all under one prefix; a subject is never built from unchecked text."""

import re
from dataclasses import dataclass
from typing import Literal

from bus_worker.errors import BadRequest

__all__ = [
    "ACCEPTED_TYPES",
    "CONTENT_TYPE",
    "HEADER_ASKED_AT",
    "HEADER_CALL_ID",
    "HEADER_CONTENT_TYPE",
    "HEADER_DEADLINE",
    "HEADER_ERROR",
    "HEADER_ERROR_CODE",
    "HEADER_HEARTBEAT",
    "HEADER_JOB_ID",
    "HEADER_REQUEST_ID",
    "HEADER_TRACEPARENT",
    "PRIORITIES",
    "Priority",
    "Subjects",
    "job_id_of",
    "model_token",
]

CONTENT_TYPE = "application/vnd.msgpack"
"""The registered media type; `ACCEPTED_TYPES` are the aliases in common use."""
ACCEPTED_TYPES = frozenset({CONTENT_TYPE, "application/msgpack", "application/x-msgpack"})

HEADER_CONTENT_TYPE = "Content-Type"
HEADER_REQUEST_ID = "Stt-Request-Id"
HEADER_ASKED_AT = "Stt-Asked-At"
HEADER_CALL_ID = "Stt-Call-Id"
HEADER_DEADLINE = "Stt-Deadline"
HEADER_HEARTBEAT = "Stt-Heartbeat"
HEADER_JOB_ID = "Stt-Job-Id"
HEADER_TRACEPARENT = "traceparent"
HEADER_ERROR = "Nats-Service-Error"
HEADER_ERROR_CODE = "Nats-Service-Error-Code"

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_CLAIM_ID = re.compile(r"[0-9a-f]{32}")
_PLAIN = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)+")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Priority = Literal["high", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "low")


def model_token(model: str) -> str:
    """The subject token of a model's name: dots become `_`, everything else must be a plain token.

    Raises:
        BadRequest: the name holds anything but letters, digits, `.`, `_` and `-`.
    """
    token = model.replace(".", "_")
    if not _TOKEN.fullmatch(token):
        raise BadRequest(
            f"{model[:80]!r} is not a model's name: letters, digits, '.', '_' and '-' only",
            field="model",
        )
    return token


def job_id_of(text: str) -> str:
    """A job's id, which is part of subjects.

    Raises:
        BadRequest: it is anything but 1 to 64 letters, digits, `_` and `-`.
    """
    if not _JOB_ID.fullmatch(text):
        raise BadRequest(
            "a job's id has 1 to 64 letters, digits, '_' and '-', and nothing else", field="job_id"
        )
    return text


@dataclass(frozen=True, slots=True)
class Subjects:
    """The names under one prefix (`SUBJECT_PREFIX`, which is also the service's name)."""

    prefix: str = "stt"

    def transcribe(self, model: str) -> str:
        """Where requests for `model` go."""
        return f"{self.prefix}.v1.transcribe.{model_token(model)}"

    @property
    def transcribe_default(self) -> str:
        """Where a request without a model goes; the server maps it to the default model."""
        return f"{self.prefix}.v1.transcribe"

    def lookup(self, model: str) -> str:
        """Where one asks whether an answer is known; that needs no free slot."""
        return f"{self.prefix}.v1.lookup.{model_token(model)}"

    @property
    def cancel(self) -> str:
        """Broadcast: `{call_id}` is no longer wanted."""
        return f"{self.prefix}.control.cancel"

    @property
    def waiting(self) -> str:
        """Broadcast: somebody waits for room on `{model}`."""
        return f"{self.prefix}.control.waiting"

    @property
    def cache_clear(self) -> str:
        """Broadcast: every worker forgets its answers and says how many there were."""
        return f"{self.prefix}.control.cache.clear"

    @property
    def claims_stream(self) -> str:
        """The stream that keeps audio too large for a message."""
        return f"{self.prefix.upper()}_CLAIMS"

    @property
    def claims(self) -> str:
        """Every chunk of every claim."""
        return f"{self.prefix}.claims.*.*"

    def claim(self, claim_id: str, chunk: int) -> str:
        """Where one chunk of a claim lies.

        Raises:
            BadRequest: the id is anything but 128 bits as 32 hexadecimal digits.
        """
        if not _CLAIM_ID.fullmatch(claim_id):
            raise BadRequest("'claim.id' must be 32 hexadecimal digits", field="claim.id")
        return f"{self.prefix}.claims.{claim_id}.{int(chunk)}"

    @property
    def jobs_stream(self) -> str:
        """The work queue of jobs."""
        return f"{self.prefix.upper()}_JOBS"

    def jobs(self, model: str, priority: Priority) -> str:
        """Where jobs for `model` go."""
        return f"{self.prefix}.jobs.{model_token(model)}.{priority}"

    @property
    def windows_stream(self) -> str:
        """The work queue of the windows that long recordings are cut into."""
        return f"{self.prefix.upper()}_WINDOWS"

    def windows(self, model: str, priority: Priority) -> str:
        """Where windows of long recordings for `model` go."""
        return f"{self.prefix}.windows.{model_token(model)}.{priority}"

    @property
    def webhooks_stream(self) -> str:
        """The work queue of what is to be told to webhooks."""
        return f"{self.prefix.upper()}_WEBHOOKS"

    @property
    def webhooks(self) -> str:
        """Where it is put that a webhook is to be told."""
        return f"{self.prefix}.webhooks"

    def may_tell(self, subject: str) -> bool:
        """Whether a result may be told on a subject that a caller names: an inbox, or one kept for that."""
        ours = subject.startswith(("_INBOX.", f"{self.prefix}.results."))
        return ours and bool(_PLAIN.fullmatch(subject))

    @property
    def state_stream(self) -> str:
        """The stream that keeps what is known of each job: its status, its windows, its transcript."""
        return f"{self.prefix.upper()}_STATE"

    def state(self, job_id: str, part: str) -> str:
        """Where one part of what is known of a job lies.

        Raises:
            BadRequest: see `job_id_of`.
        """
        return f"{self.prefix}.state.{job_id_of(job_id)}.{part}"

    @property
    def events_stream(self) -> str:
        """The stream that keeps jobs' events for a day."""
        return f"{self.prefix.upper()}_EVENTS"

    def events(self, job_id: str) -> str:
        """Where a job's events are told.

        Raises:
            BadRequest: see `job_id_of`.
        """
        return f"{self.prefix}.events.{job_id_of(job_id)}"

    @property
    def dead_stream(self) -> str:
        """The stream that keeps jobs that failed, with the reason and the audio."""
        return f"{self.prefix.upper()}_DEAD"

    def dead(self, job_id: str) -> str:
        """Where a failed job lies.

        Raises:
            BadRequest: see `job_id_of`.
        """
        return f"{self.prefix}.dead.{job_id_of(job_id)}"

    @staticmethod
    def queue(model: str, priority: Priority) -> str:
        """The durable consumer, on the jobs' and on the windows' stream, of one model and priority."""
        return f"{model_token(model)}-{priority}"

    def discovery(self, verb: str) -> tuple[str, str]:
        """The two broadcast subjects of a NATS service verb (PING, INFO, STATS)."""
        return f"$SRV.{verb}", f"$SRV.{verb}.{self.prefix}"
