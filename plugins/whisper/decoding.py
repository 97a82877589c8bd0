"""One clip through the model, in a thread: where the speech is, in which language, what was said."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faster_whisper.transcribe import Segment as RawSegment
from faster_whisper.transcribe import Word as RawWord
from faster_whisper.vad import VadOptions, get_speech_timestamps

from bus_worker.messages import Segment, Word
from bus_worker.plugin import SAMPLE_RATE, Draft, Samples
from plugins.whisper.decoder import RESET, Decoder, Effort, Language
from plugins.whisper.options import Options
from plugins.whisper.utterances import (
    CUT_OVER,
    PAUSE_MS,
    Span,
    Utterance,
    covering,
    cut,
    whole,
)

FRAME = 160
"""Samples of the shortest sound that can be heard: one frame of the features."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in a clip; no language where no words were."""

    segments: list[Segment]
    language: Language | None = None


def hear(decoder: Decoder, draft: Draft, options: Options) -> Heard:
    """Everything said in the draft's samples; each segment is told to a caller who streams.

    Raises:
        Cancelled, DeadlineExceeded: nobody waits any more; looked at before every segment,
            and before every step of the model.
    """
    assert draft.samples is not None  # noqa: S101 - for the type checker; the stage needs "samples"
    decoder = decoder.watched(draft.check)
    utterances = _utterances(draft, draft.samples, options)
    language = Language(draft.options.language, 1.0) if draft.options.language else None
    segments: list[Segment] = []
    earlier: list[int] = []
    for utterance in utterances:
        draft.check()
        with draft.span("encode"):
            window = decoder.listen(utterance.samples(draft.samples), short=options.short_context)
        if language is None:
            language = decoder.detect(window, options)
        written = decoder.decode(window, language.code, draft.options, options, earlier)
        for raw in _timed(draft, "decode", written):
            draft.check()
            segment = _placed(raw, utterance, segments)
            segments.append(segment)
            earlier = _carried(earlier, raw, decoder.eot)
            if draft.stream:
                draft.emit(segment)
    _note(draft, decoder.effort)
    return Heard(segments, language if segments else None)


def _timed(draft: Draft, name: str, parts: Iterator[RawSegment]) -> Iterator[RawSegment]:
    """What comes, and under a span of the draft how long it took to come."""
    while True:
        with draft.span(name):
            part = next(parts, None)
        if part is None:
            return
        yield part


def _note(draft: Draft, effort: Effort) -> None:
    draft.note("context", effort.context / 100)
    if effort.batch:
        draft.note("batch", effort.batch)
        draft.note("calls", ",".join(map(str, effort.calls)))
    if effort.doubts:
        draft.note("reruns", len(effort.doubts))
        draft.note("doubts", ",".join(effort.doubts))


def _carried(earlier: list[int], raw: RawSegment, eot: int) -> list[int]:
    """What the next piece is shown of the text before it; nothing that was hard to decode."""
    if (raw.temperature or 0) > RESET:
        return []
    return earlier + [token for token in raw.tokens if token < eot]


def _utterances(draft: Draft, samples: Samples, options: Options) -> list[Utterance]:
    """What to decode: all speech at once, or a longer clip that is streamed a piece at a time."""
    length, everything = len(samples), [Span(0, len(samples))]
    if length < FRAME:
        return []
    vad = options.vad if draft.options.vad is None else draft.options.vad
    pieces = draft.stream and length > CUT_OVER * SAMPLE_RATE
    if not vad and not pieces:
        return whole(everything, length)
    silence_ms = options.vad_min_silence_ms
    with draft.span("vad"):
        speech = find_speech(
            samples, options.vad_threshold, min(silence_ms, PAUSE_MS) if pieces else silence_ms
        )
    if vad:
        return cut(speech, length) if pieces else whole(speech, length)
    return covering(cut(speech or everything, length), length)


def find_speech(samples: Samples, threshold: float, min_silence_ms: int) -> list[Span]:
    """Where someone speaks."""
    found = get_speech_timestamps(
        samples,
        VadOptions(threshold=threshold, min_silence_duration_ms=min_silence_ms, speech_pad_ms=0),
    )
    return [Span(int(speech["start"]), int(speech["end"])) for speech in found]


def _placed(raw: RawSegment, utterance: Utterance, before: list[Segment]) -> Segment:
    """A segment with the clip's own times: in order, within the utterance, rounded for the wire."""
    earliest = max(before[-1].end if before else 0.0, min(utterance.begin, utterance.end))
    latest = utterance.end

    def fit(seconds: float) -> float:
        return min(max(round(float(seconds), 2), earliest), latest)

    words = None if raw.words is None else _words(raw.words, utterance, fit)
    start, end = map(fit, utterance.between(raw.start, raw.end))
    if words:
        start, end = words[0].start, words[-1].end
    return Segment(
        id=len(before),
        seek=round(100 * utterance.at(raw.seek / 100)),
        start=start,
        end=max(start, end),
        text=raw.text,
        tokens=list(raw.tokens),
        confidence=round(float(raw.avg_logprob), 3),
        no_speech_prob=round(float(raw.no_speech_prob), 3),
        compression_ratio=round(float(raw.compression_ratio), 3),
        temperature=float(raw.temperature or 0),
        words=words,
    )


def _words(raw: list[RawWord], utterance: Utterance, fit: Callable[[float], float]) -> list[Word]:
    words: list[Word] = []
    for word in raw:
        # Moved by its middle: a word that a joint runs through lies on one side of it.
        middle = (word.start + word.end) / 2
        moved = utterance.at(middle) - middle
        start = max(fit(word.start + moved), words[-1].end if words else 0.0)
        end = max(start, fit(word.end + moved))
        words.append(Word(word.word, start, end, round(float(word.probability), 3)))
    return words
