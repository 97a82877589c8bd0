"""A hand that writes of jobs what workers write, when a test wants it."""

import time
from dataclasses import asdict, replace
from typing import Any

from bus_worker.job_record import JobState
from bus_worker.messages import ModelInfo, Segment, Timings, Transcript
from bus_worker.results import Results


class Hand:
    """Changes jobs as workers do."""

    def __init__(self, results: Results) -> None:
        self.results = results

    async def windows(self, job_id: str, *windows: tuple[int, list[Segment]]) -> None:
        """Say what was heard in these windows, in this order."""
        known = await self.results.change(job_id, lambda was: replace(was, status="running"))
        for number, segments in windows:
            await self.results.tell(known.record, f"w{number}", window=number, segments=segments)

    async def end(self, job_id: str, status: JobState, **more: Any) -> None:
        """Bring it to its end; `segments` become its transcript."""
        segments = more.pop("segments", None)
        if segments is not None:
            answer, parts = await self.results.keep_transcript(job_id, transcript(segments))
            more |= {"answer": answer, "parts": parts}
        known = await self.results.change(
            job_id, lambda was: replace(was, status=status, finished_at=time.time(), **more)
        )
        await self.results.tell_end(known.record)


def transcript(segments: list[Segment]) -> dict[str, Any]:
    """A whole transcript of these."""
    return asdict(
        Transcript(
            request_id="r", text=" ".join(one.text for one in segments), language="en",
            language_probability=0.9, duration=60.0, segments=segments, model=ModelInfo("pretend"),
            timings=Timings(), real_time_factor=0, worker_id="w",
        )
    )  # fmt: skip
