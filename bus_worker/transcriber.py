"""The whole road of one request inside a worker: draft → cache → stages → cache → transcript."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bus_worker.errors import TooLarge
from bus_worker.messages import ModelInfo, Segment, Timings, Transcript
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft
from bus_worker.recall import Answer, Recall, Visit
from bus_worker.requests import LookupRequest, TranscribeRequest
from bus_worker.single_flight import Flights, Landing, Seat

__all__ = ["Transcriber"]


@dataclass(frozen=True, slots=True)
class Transcriber:
    """Takes requests through an opened pipeline.

    Args:
        model: named in transcripts of drafts that no model heard (silence).
        max_bytes: largest upload taken.
        recall: what was answered before.
        flights: what is being worked out.
    """

    pipeline: Pipeline
    model: ModelInfo
    worker_id: str
    max_bytes: int
    recall: Recall = field(default_factory=Recall)
    flights: Flights = field(default_factory=Flights)

    def described(self) -> dict[str, str]:
        """What hears, and on what: model, revision, device and compute_type, empty where they are not known."""
        runs_on = getattr(self.pipeline.serves, "runs_on", {})
        device, arithmetic = (str(runs_on.get(name, "")) for name in ("device", "compute_type"))
        model = self.model
        return {
            "model": model.name, "revision": model.revision or "", "device": device,
            "compute_type": arithmetic,
        }  # fmt: skip

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
        self,
        draft: Draft,
        request: TranscribeRequest,
        *,
        request_id: str,
        received: float,
        seat: Seat | None = None,
    ) -> Transcript:
        """Answer from the cache, or run the draft through the stages.

        Args:
            received: `time.monotonic()` value at which the request arrived.
            seat: its slot, so that equal requests may share the work.

        Raises:
            BusWorkerError: as the stages raise it.
        """
        options = self.pipeline.options_for(request.stages)
        started = time.monotonic()
        visit = self.recall.visit(
            draft, self.pipeline, options, self._model, fresh=not request.cache
        )
        named = await visit.named()
        if seat is None or named is None or visit.fresh:
            landing = await self._alone(visit)
        else:
            landing, joined = await self.flights.board(visit, self._hear, seat)
            draft.notes |= landing.draft.notes
            draft.spans |= landing.draft.spans
            draft.timeline += landing.draft.timeline
            if joined:
                self.recall.counts["shared"] += 1
                draft.note("shared", value=True)
        if landing.known:
            draft.note("cache_hit", value=True)
        return self._transcript(landing, request_id, received, started)

    async def hear(
        self, draft: Draft, stages: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Answer, dict[str, float]]:
        """Run a draft that has its samples through the stages behind the decoder's; the cache is not asked.

        A piece of a long recording comes once; kept, it would push out what comes often.

        Args:
            stages: options of stages that the request sets.

        Returns:
            What was heard, and the seconds of each stage.

        Raises:
            BusWorkerError: as the stages raise it.
        """
        options = self.pipeline.options_for(stages)
        part = slice(self.pipeline.decoded, None)
        seconds = await self.pipeline.run(draft, options, part)
        return Answer.of(draft, self._model), seconds

    async def lookup(
        self, question: LookupRequest, *, request_id: str, received: float
    ) -> Transcript | None:
        """The transcript if it is known already; takes no audio and no slot.

        Raises:
            BadRequest: the options are not allowed.
        """
        options = self.pipeline.options_for(question.stages)
        draft = Draft(format=question.format, options=question.options, stream=question.stream)
        visit = self.recall.visit(draft, self.pipeline, options, self._model)
        await visit.named(question.sha256)
        answer = await visit.same_bytes()
        if answer is None:
            return None
        return self._transcript(Landing.found(answer, draft), request_id, received, received)

    @property
    def _model(self) -> ModelInfo:
        return self.pipeline.model or self.model

    def _transcript(
        self, landing: Landing, request_id: str, received: float, started: float
    ) -> Transcript:
        answer, known = landing.answer, landing.known
        ended = time.monotonic()
        total = ended - received
        return Transcript(
            request_id=request_id,
            text=answer.text,
            language=answer.language,
            language_probability=answer.language_probability,
            duration=answer.duration,
            segments=answer.segments,
            model=answer.model,
            timings=Timings(
                queue=_ms(started - received),
                stages={name: _ms(seconds) for name, seconds in landing.stages.items()},
                transcribe=_ms(ended - started),
                total=_ms(total),
            ),
            real_time_factor=round(total / answer.duration, 4) if answer.duration else 0.0,
            worker_id=self.worker_id,
            cache_hit=known,
            cached_at=answer.at if known else None,
            cache_hit_at=time.time() if known else None,
            warnings=answer.warnings,
        )

    async def _alone(self, visit: Visit) -> Landing:
        known = await visit.same_bytes()
        return await self._hear(visit) if known is None else Landing.found(known, visit.draft)

    async def _hear(self, visit: Visit) -> Landing:
        """Run the stages; at the cut the cache is asked once more, by the samples."""
        draft, options, cut = visit.draft, visit.options, self.pipeline.cut
        stages = await self.pipeline.run(draft, options, slice(cut))
        if cut is not None and not draft.finished:
            known = await visit.same_samples()
            if known is not None:
                return Landing.found(known, draft, stages)
            stages |= await self.pipeline.run(draft, options, slice(cut, None))
        answer = Answer.of(draft, self.model)
        await visit.keep(answer)
        return Landing(answer, known=False, stages=stages, draft=draft)


def _ms(seconds: float) -> float:
    """Seconds, rounded to a tenth of a millisecond."""
    return round(seconds, 4)
