"""Every name on the bus, all under one prefix; a subject is never built from unchecked text."""

import re
from dataclasses import dataclass

from bus_worker.errors import BadRequest

__all__ = [
    "ACCEPTED_TYPES",
    "CONTENT_TYPE",
    "HEADER_CALL_ID",
    "HEADER_CONTENT_TYPE",
    "HEADER_DEADLINE",
    "HEADER_ERROR",
    "HEADER_ERROR_CODE",
    "HEADER_HEARTBEAT",
    "HEADER_REQUEST_ID",
    "HEADER_TRACEPARENT",
    "Subjects",
    "model_token",
]

CONTENT_TYPE = "application/vnd.msgpack"
"""The registered media type; `ACCEPTED_TYPES` are the aliases in common use."""
ACCEPTED_TYPES = frozenset({CONTENT_TYPE, "application/msgpack", "application/x-msgpack"})

HEADER_CONTENT_TYPE = "Content-Type"
HEADER_REQUEST_ID = "Stt-Request-Id"
HEADER_CALL_ID = "Stt-Call-Id"
HEADER_DEADLINE = "Stt-Deadline"
HEADER_HEARTBEAT = "Stt-Heartbeat"
HEADER_TRACEPARENT = "traceparent"
HEADER_ERROR = "Nats-Service-Error"
HEADER_ERROR_CODE = "Nats-Service-Error-Code"

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_CLAIM_ID = re.compile(r"[0-9a-f]{32}")


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

    def direct_get(self, subject: str) -> str:
        """Where the server is asked for the last message on a subject of the claims' stream."""
        return f"$JS.API.DIRECT.GET.{self.claims_stream}.{subject}"

    def discovery(self, verb: str) -> tuple[str, str]:
        """The two broadcast subjects of a NATS service verb (PING, INFO, STATS)."""
        return f"$SRV.{verb}", f"$SRV.{verb}.{self.prefix}"
