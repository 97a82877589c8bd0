"""What becomes of one attempt at a job, or of one window: a line in the log, figures in the metrics."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bus_worker.errors import BusWorkerError, Cancelled, Failed
from bus_worker.jobs.means import Means
from bus_worker.messages import Transcript
from bus_worker.metrics import Lane, Work
from bus_worker.plugin import Draft
from bus_worker.recall import Answer

__all__ = ["Note", "noted"]


@dataclass(slots=True)
class Note:
    """What is learned of the work on its way."""

    known: dict[str, Any]
    heard: Answer | Transcript | None = None
    draft: Draft = field(default_factory=Draft)
    stages: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def noted(
    means: Means,
    lane: Lane,
    traceparent: str | None,
    *,
    waited: float | None = None,
    **known: Any,
) -> Iterator[Note]:
    """Note what is done in the block, however it ends.

    Args:
        traceparent: what it is a part of.
        waited: seconds that it lay in its queue, where this is the first attempt.
        known: what its line says of it.
    """
    began, note, code = time.monotonic(), Note(known), Cancelled.code
    at = time.time()
    try:
        yield note
        code = "ok"
    except BusWorkerError as error:
        code = error.code
        raise
    except Exception:
        code = Failed.code
        raise
    finally:
        work = Work(
            lane,
            code,
            time.monotonic() - began,
            waited,
            note.heard.duration if note.heard else 0.0,
            note.stages,
            note.draft.spans,
            note.draft.notes,
            at,
            traceparent,
            note.draft.timeline,
        )
        means.line.write(work, note.known, means.line.words(note.heard) if note.heard else None)
