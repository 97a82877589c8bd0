"""What every step of a job works with."""

from dataclasses import dataclass, field

from bus_worker.bus import Bus
from bus_worker.claim_check import ClaimCheck
from bus_worker.dead_letters import DeadLetters
from bus_worker.request_line import RequestLine
from bus_worker.results import Results
from bus_worker.subjects import Subjects
from bus_worker.transcriber import Transcriber
from bus_worker.webhook_rules import WebhookRules

__all__ = ["Limits", "Means"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large jobs may be: seconds and bytes."""

    max_duration: float = 14_400.0
    max_bytes: int = 524_288_000
    longest_clip: float = 30.0
    """Seconds of audio that is heard in one piece, and of a window."""
    formats: tuple[str, ...] | None = None
    """Those that are allowed; None: all."""


@dataclass(frozen=True, slots=True)
class Means:
    """The rooms that jobs lean on, put together by the process."""

    bus: Bus
    names: Subjects
    transcriber: Transcriber
    results: Results
    checks: ClaimCheck
    dead: DeadLetters
    rules: WebhookRules
    limits: Limits
    line: RequestLine = field(default_factory=RequestLine)
