"""The transcripts of a recording's windows as one: nothing lost, nothing doubled, times of the whole."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from bus_worker.formats import joined
from bus_worker.messages import Segment, Transcript, segment_to_map

__all__ = ["Joined", "WindowResult", "join"]

SAMPLE_RATE = 16_000
SEEKS = 100
"""A segment's `seek` counts frames of 10 ms."""
SILENT, UNSPOKEN = "silent_audio", "no_speech"
"""Warnings that are true of the whole only if they are of each window; silence is unspoken, too."""


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What was heard in one window: `start` and `length` in samples, times from the window's start."""

    start: int
    length: int
    text: str
    language: str | None
    language_probability: float | None
    segments: list[Segment]
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, transcript: Transcript, *, start: int, length: int) -> Self:
        """From the transcript of a window's samples."""
        return cls(
            start=start,
            length=length,
            text=transcript.text,
            language=transcript.language,
            language_probability=transcript.language_probability,
            segments=transcript.segments,
            warnings=transcript.warnings,
        )

    @classmethod
    def from_map(cls, data: Mapping[str, Any]) -> Self:
        """As `to_map` wrote it; keys that this version does not know are ignored.

        Raises:
            KeyError, TypeError: it is no such map.
        """
        known = {f.name: data[f.name] for f in fields(cls)}
        return cls(**{**known, "segments": [Segment.from_map(one) for one in data["segments"]]})

    def to_map(self) -> dict[str, Any]:
        """As plain maps and lists, for the wire."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "segments": [segment_to_map(segment) for segment in self.segments]}


@dataclass(frozen=True, slots=True)
class Joined:
    """What was said in the whole recording; `duration` is its seconds."""

    text: str
    language: str | None
    language_probability: float | None
    duration: float
    segments: list[Segment]
    warnings: list[str]


def join(results: Iterable[WindowResult]) -> Joined:
    """One transcript of all windows, in the order of their starts."""
    windows = sorted(results, key=lambda window: window.start)
    languages = ((w.language, w.language_probability) for w in windows if w.language is not None)
    language, probability = next(languages, (None, None))
    shifted = (segment for window in windows for segment in _shifted(window))
    return Joined(
        text=joined(window.text for window in windows),
        language=language,
        language_probability=probability,
        duration=sum(window.length for window in windows) / SAMPLE_RATE,
        segments=[replace(segment, id=number) for number, segment in enumerate(shifted)],
        warnings=_warnings(windows),
    )


def _shifted(window: WindowResult) -> Iterable[Segment]:
    """A window's segments by the recording's clock; none runs past the window's end."""

    def moved(seconds: float) -> float:
        inside = min(max(0.0, seconds), window.length / SAMPLE_RATE)
        return round(window.start / SAMPLE_RATE + inside, 2)

    seek = round(window.start * SEEKS / SAMPLE_RATE)
    for segment in window.segments:
        words = segment.words and [
            replace(word, start=moved(word.start), end=moved(word.end)) for word in segment.words
        ]
        yield replace(
            segment,
            seek=segment.seek + seek,
            start=moved(segment.start),
            end=moved(segment.end),
            words=words,
        )


def _warnings(windows: Sequence[WindowResult]) -> list[str]:
    """Each once, as they came; that nothing was heard only if it is so of every window."""
    seen = dict.fromkeys(code for window in windows for code in window.warnings)
    if not all(SILENT in window.warnings for window in windows):
        seen.pop(SILENT, None)
    if not all({SILENT, UNSPOKEN} & {*window.warnings} for window in windows):
        seen.pop(UNSPOKEN, None)
    return list(seen)
