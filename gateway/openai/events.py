"""A transcript as OpenAI's server-sent events: what each utterance adds, then the whole text."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from bus_worker.client import TranscriptStream
from bus_worker.formats import RunningText
from bus_worker.messages import Transcript
from gateway.openai.hearing import Hearing
from gateway.openai.replies import languages
from gateway.openai.schemas import Delta, Done

__all__ = ["events"]


async def events(stream: TranscriptStream | Hearing) -> AsyncGenerator[Delta | Done]:
    """The events of one request, each as soon as it is known.

    Raises:
        BusWorkerError: as the stream does.
    """
    running, said = RunningText(), ""
    async with aclosing(aiter(stream)) as segments:
        async for segment in segments:
            if delta := running.add(segment.text):
                said += delta
                yield Delta(delta=delta)
    transcript = stream.transcript
    assert transcript is not None  # noqa: S101 - the loop ended without an error
    if rest := _rest(transcript, said):
        yield Delta(delta=rest)
    yield Done(text=transcript.text, languages=languages(transcript))


def _rest(transcript: Transcript, said: str) -> str:
    """What no segment told: a stage may write the text itself, or end the walk with one.

    What was said and is no beginning of the text cannot be taken back; then `done` alone is right.
    """
    return transcript.text.removeprefix(said) if transcript.text.startswith(said) else ""
