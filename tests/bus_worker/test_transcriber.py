"""From a request to a transcript, without a bus."""

import time

import pytest
from pydantic import BaseModel

from bus_worker.errors import AudioTooShort, TooLarge
from bus_worker.messages import ModelInfo
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.requests import TranscribeRequest
from bus_worker.testing import segment
from bus_worker.transcriber import Transcriber


class Speed(BaseModel):
    slow: float = 0.0


@stage(Speed, gives=("segments",), per_request=("slow",))
async def hear(draft: Draft, options: Speed) -> None:
    """Hear two segments."""
    draft.duration = 2.0
    draft.language, draft.language_probability = "en", 0.9
    draft.segments = [segment(" hello"), segment(" there.", 1, 2, 1)]
    for one in draft.segments:
        draft.emit(one)
    draft.warn("loud")


@stage()
async def hush(draft: Draft, options: NoOptions) -> None:
    """Find silence."""
    draft.duration = 1.0
    draft.warn("silent_audio")
    draft.finish()


@stage()
async def short(draft: Draft, options: NoOptions) -> None:
    """Refuse."""
    raise AudioTooShort("0.05 s; at least 0.1 s")


def transcriber(*stages: Stage) -> Transcriber:
    pipeline = Pipeline.order([s.name for s in stages], {s.name: s for s in stages})
    return Transcriber(pipeline=pipeline, model=ModelInfo("base"), worker_id="w", max_bytes=10)


async def run(of: Transcriber, request: TranscribeRequest, **draft):
    made = of.draft(request, **draft)
    return await of.run(made, request, request_id="r", received=time.monotonic())


async def test_the_draft_becomes_a_transcript():
    transcript = await run(transcriber(hear), TranscribeRequest(audio=b"x"))
    assert transcript.text == "hello there."
    assert transcript.language == "en"
    assert transcript.duration == 2.0
    assert transcript.model == ModelInfo("base")
    assert transcript.warnings == ["loud"]
    assert list(transcript.timings.stages) == ["hear"]
    assert transcript.timings.total >= transcript.timings.transcribe
    assert transcript.real_time_factor == pytest.approx(transcript.timings.total / 2, abs=1e-3)


async def test_silence_claims_no_language_and_no_words():
    transcript = await run(transcriber(hush, hear), TranscribeRequest(audio=b"x"))
    assert (transcript.text, transcript.segments, transcript.language) == ("", [], None)
    assert transcript.warnings == ["silent_audio"]
    assert list(transcript.timings.stages) == ["hush"]


async def test_segments_are_told_only_where_the_request_streams():
    told = []
    await run(transcriber(hear), TranscribeRequest(audio=b"x"), on_segment=told.append)
    assert told == []
    await run(transcriber(hear), TranscribeRequest(audio=b"x", stream=True), on_segment=told.append)
    assert [s.text for s in told] == [" hello", " there."]


def test_more_bytes_than_the_limit_are_refused_with_both_numbers():
    with pytest.raises(TooLarge, match=r"11 bytes.*10.*MAX_FILE_SIZE") as caught:
        transcriber(hear).draft(TranscribeRequest(audio=bytes(11)))
    assert caught.value.details == {"size": 11, "maximum": 10}


async def test_a_refusal_names_its_stage():
    with pytest.raises(AudioTooShort) as caught:
        await run(transcriber(short), TranscribeRequest(audio=b"x"))
    assert caught.value.details["stage"] == "short"
