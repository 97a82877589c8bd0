"""A transcript as OpenAI's audio API writes it, in each of its formats."""

import math
from collections.abc import Callable

from pydantic import BaseModel

from bus_worker.formats import joint, to_srt, to_text, to_vtt
from bus_worker.messages import Segment, Transcript
from gateway.openai.fields import Asked
from gateway.openai.languages import language_name
from gateway.openai.schemas import (
    Language,
    Seconds,
    Transcription,
    Translation,
    VerboseSegment,
    VerboseTranscription,
    VerboseTranslation,
    VerboseWord,
)

__all__ = ["MEDIA_TYPES", "languages", "written"]

MEDIA_TYPES = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
PLAIN: dict[str, Callable[[Transcript], str]] = {"text": to_text, "srt": to_srt, "vtt": to_vtt}


def written(transcript: Transcript, asked: Asked) -> str:
    """The body of the answer."""
    if plain := PLAIN.get(asked.response_format):
        return plain(transcript)
    translated = asked.options.get("task") == "translate"
    if asked.response_format == "json":
        reply = _translation(transcript) if translated else _transcription(transcript)
    else:
        reply = _verbose_translation(transcript) if translated else _verbose(transcript, asked)
    return reply.model_dump_json(exclude_none=True)


def languages(transcript: Transcript) -> list[Language]:
    """The languages heard: one, or none where nothing was said."""
    return [Language(code=transcript.language)] if transcript.language else []


def _transcription(transcript: Transcript) -> BaseModel:
    return Transcription(
        text=transcript.text, languages=languages(transcript), usage=_usage(transcript)
    )


def _translation(transcript: Transcript) -> BaseModel:
    return Translation(text=transcript.text)


def _verbose(transcript: Transcript, asked: Asked) -> BaseModel:
    with_words = asked.options.get("word_timestamps", False)
    return VerboseTranscription(
        task="transcribe",
        language=language_name(transcript.language or asked.options.get("language")),
        duration=transcript.duration,
        text=transcript.text,
        segments=_segments(transcript) if asked.segments else None,
        words=_words(transcript) if with_words else None,
        usage=_usage(transcript),
    )


def _verbose_translation(transcript: Transcript) -> BaseModel:
    return VerboseTranslation(
        task="translate",
        language="english",  # what it is written in
        duration=transcript.duration,
        text=transcript.text,
        segments=_segments(transcript),
    )


def _usage(transcript: Transcript) -> Seconds:
    return Seconds(seconds=math.ceil(transcript.duration))


def _segments(transcript: Transcript) -> list[VerboseSegment]:
    """The segments, each with the space before it that the API keeps and our `tidy` takes away."""
    texts = [segment.text for segment in transcript.segments]
    spaces = (joint(before, text) for before, text in zip(["a", *texts], texts, strict=False))
    return [
        _segment(segment, space) for segment, space in zip(transcript.segments, spaces, strict=True)
    ]


def _segment(segment: Segment, space: str) -> VerboseSegment:
    return VerboseSegment(
        id=segment.id,
        seek=segment.seek,
        start=segment.start,
        end=segment.end,
        text=space + segment.text,
        tokens=segment.tokens,
        temperature=segment.temperature,
        avg_logprob=segment.confidence,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
    )


def _words(transcript: Transcript) -> list[VerboseWord]:
    """Every word, without the space that Whisper writes before it."""
    return [
        VerboseWord(word=word.word.strip(), start=word.start, end=word.end)
        for segment in transcript.segments
        for word in segment.words or ()
    ]
