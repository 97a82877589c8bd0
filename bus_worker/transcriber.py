"""The whole road of one request inside a worker: draft → stages → transcript."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bus_worker.errors import TooLarge
from bus_worker.messages import ModelInfo, Segment, Timings, Transcript
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft
from bus_worker.requests import TranscribeRequest

__all__ = ["Transcriber"]


@dataclass(frozen=True, slots=True)
class Transcriber:
    """Takes requests through an opened pipeline.

    Args:
        model: named in transcripts of drafts that no model heard (silence).
        max_bytes: largest upload taken.
    """

    pipeline: Pipeline
    model: ModelInfo
    worker_id: str
    max_bytes: int

    def check_size(self, size: int) -> None:
        """Refuse audio of so many bytes, before any of it is fetched.

        Raises:
            TooLarge: more than the limit.
        """
        if size > self.max_bytes:
            raise TooLarge(
                f"the audio has {size} bytes; the limit is {self.max_bytes} (MAX_FILE_SIZE)",
                size=size,
                maximum=self.max_bytes,
            )

    def draft(
        self,
        request: TranscribeRequest,
        *,
        deadline: float | None = None,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Draft:
        """A draft of the request.

        Args:
            deadline: `time.monotonic()` value after which nobody waits.
            on_segment: told of each segment as it is ready, from any thread, when the request streams.

        Raises:
            TooLarge: the audio has more bytes than the limit.
        """
        self.check_size(len(request.audio))
        return Draft(
            audio=request.audio,
            format=request.format,
            options=request.options,
            stream=request.stream,
            deadline=deadline,
            on_segment=on_segment if request.stream else None,
        )

    async def run(
        self, draft: Draft, request: TranscribeRequest, *, request_id: str, received: float
    ) -> Transcript:
        """Run the draft through the stages.

        Args:
            received: `time.monotonic()` value at which the request arrived.

        Raises:
            BusWorkerError: as the stages raise it.
        """
        options = self.pipeline.options_for(request.stages)
        started = time.monotonic()
        stages = await self.pipeline.run(draft, options)
        ended = time.monotonic()
        total = ended - received
        return Transcript(
            request_id=request_id,
            text=draft.text or "".join(segment.text for segment in draft.segments).strip(),
            language=draft.language,
            language_probability=draft.language_probability,
            duration=round(draft.duration, 3),
            segments=draft.segments,
            model=draft.model or self.model,
            timings=Timings(
                queue=_ms(started - received),
                stages={name: _ms(seconds) for name, seconds in stages.items()},
                transcribe=_ms(ended - started),
                total=_ms(total),
            ),
            real_time_factor=round(total / draft.duration, 4) if draft.duration else 0.0,
            worker_id=self.worker_id,
            warnings=draft.warnings,
        )


def _ms(seconds: float) -> float:
    """Seconds, rounded to a tenth of a millisecond."""
    return round(seconds, 4)
