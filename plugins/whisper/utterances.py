"""Stretches of speech: which samples the decoder hears at once, and when in the clip that was.

Nothing here knows the model: `decoding` finds the speech, this cuts it and puts times back.
"""

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bus_worker.plugin import SAMPLE_RATE, Samples

CUT_OVER = 8.0
"""Seconds over which speech that is streamed is cut, at its longest pause first.

Measured on the 39 English clips of 8 to 20 s (base; word error rate heard whole 11.3 to 11.7 %):
pieces of 4 s or more 11.2 to 11.5 %, of 3 s 12.3 %, of 2 s 13.2 %; cut at the first pause after 3 s
13.2 %; 4 s without the text before as a prompt 11.9 %.
"""
SHORTEST = 4.0
"""Seconds of the shortest piece."""
PAUSE_MS = 160
"""Shortest pause to cut at."""

_SURE = round(0.4 * SAMPLE_RATE)
"""Around speech somebody may yet speak: its edges are soft, and the detector is late."""
_PADDING = 1 * SAMPLE_RATE
"""Kept around speech, so that the model hears what silence is here; pauses up to twice that stay whole.

Measured on the 106 clips of 30 s or less, base, language given: 11.2 % word errors in English and
16.4 % in German, Spanish, French and Portuguese (faster-whisper itself 11.5 and 18.0); with 0.4 s
at inner edges 11.6 and 17.2 %, and three times as many words whose times were off.
"""
_EDGE = 1.1
"""Seconds at a joint in which no segment begins that goes on after it, nor ends that came before."""


class Span(NamedTuple):
    """Samples from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """Spans decoded as one piece, the silence between them left out.

    "Heard" seconds count from its start without that silence, the clip's seconds with it.
    """

    spans: tuple[Span, ...]
    lead: int = 0
    """Samples at its beginning in which surely nobody speaks."""

    def samples(self, clip: Samples) -> Samples:
        """What the decoder hears."""
        if len(self.spans) == 1:
            return clip[slice(*self.spans[0])]
        return np.concatenate([clip[slice(*span)] for span in self.spans])

    @property
    def end(self) -> float:
        """The clip's second at which it ends, rounded down to hundredths."""
        return self.spans[-1].end * 100 // SAMPLE_RATE / 100

    @property
    def begin(self) -> float:
        """The clip's second before which nothing is said, rounded up to hundredths."""
        return -(-(self.spans[0].start + self.lead) * 100 // SAMPLE_RATE) / 100

    def at(self, heard: float) -> float:
        """The clip's second of a moment heard."""
        joints = self._joints()
        return heard + self._left_out(bisect.bisect_right(joints, heard), joints)

    def between(self, start: float, end: float) -> tuple[float, float]:
        """The clip's seconds of a segment heard from `start` to `end`.

        The decoder lets segments touch: one that follows a silence begins where the one before
        ended, in the padding on the wrong side of the joint, and so it is with ends.
        """
        joints = self._joints()
        first, last = bisect.bisect_right(joints, start), bisect.bisect_left(joints, end)
        if first < last and joints[first] - start < _EDGE:
            start = joints[first]
            first += 1
        if first < last and end - joints[last - 1] < _EDGE:
            last -= 1
            end = joints[last]
        return start + self._left_out(first, joints), end + self._left_out(last, joints)

    def _joints(self) -> list[float]:
        """The seconds heard at which each span but the last ends."""
        lengths = (span.end - span.start for span in self.spans[:-1])
        return [end / SAMPLE_RATE for end in itertools.accumulate(lengths)]

    def _left_out(self, index: int, joints: list[float]) -> float:
        """Seconds of the clip left out before a span."""
        return self.spans[index].start / SAMPLE_RATE - (joints[index - 1] if index else 0.0)


def whole(speech: list[Span], length: int) -> list[Utterance]:
    """All speech in a clip of `length` samples as one utterance (none if there is none)."""
    return [_utterance(speech, _padded(speech, length))] if speech else []


def cut(speech: list[Span], length: int) -> list[Utterance]:
    """Speech as pieces, cut at the longest pauses until each is short enough.

    Speech is never cut where there is no pause: it stays whole, and the decoder takes it window
    by window.
    """
    kept = _padded(speech, length)
    pieces = [(0, len(speech))] if speech else []
    done: list[Utterance] = []
    while pieces:
        first, end = pieces.pop()
        if middle := _longest_pause(speech, first, end):
            pieces += [(middle, end), (first, middle)]
        else:
            done.append(_utterance(speech[first:end], kept[first:end]))
    return done


def covering(utterances: list[Utterance], length: int) -> list[Utterance]:
    """The same cuts, each in the middle of its silence, with nothing of the clip left out."""
    joints = [
        (before.spans[-1].end + after.spans[0].start) // 2
        for before, after in itertools.pairwise(utterances)
    ]
    edges = itertools.pairwise((0, *joints, length))
    return [Utterance((Span(start, end),)) for start, end in edges]


def _longest_pause(speech: list[Span], first: int, end: int) -> int:
    """Where to cut the spans from `first` to `end`: the span after their longest pause, or 0."""

    def seconds(first: int, end: int) -> float:
        return (speech[end - 1].end - speech[first].start) / SAMPLE_RATE

    if seconds(first, end) <= CUT_OVER:
        return 0
    cuts = [
        (speech[middle].start - speech[middle - 1].end, middle)
        for middle in range(first + 1, end)
        if seconds(first, middle) >= SHORTEST and seconds(middle, end) >= SHORTEST
    ]
    return max(cuts, default=(0, 0))[1]


def _utterance(speech: list[Span], kept: list[Span]) -> Utterance:
    """Spans kept around speech; where nothing was left out before it, words may begin at once."""
    lead = speech[0].start - _SURE - kept[0].start if kept[0].start else 0
    return Utterance(tuple(_joined(kept)), max(0, lead))


def _joined(spans: list[Span]) -> Iterator[Span]:
    """Spans that touch as one."""
    start, end = spans[0]
    for span in spans[1:]:
        if span.start > end:
            yield Span(start, end)
            start = span.start
        end = span.end
    yield Span(start, end)


def _padded(speech: list[Span], length: int) -> list[Span]:
    """Spans with their surroundings; where two would overlap they meet in the middle."""
    pauses = [after.start - before.end for before, after in itertools.pairwise(speech)]
    before, after = [2 * _PADDING, *pauses], [*pauses, 2 * _PADDING]
    return [
        Span(
            max(0, span.start - min(_PADDING, before[index] - before[index] // 2)),
            min(length, span.end + min(_PADDING, after[index] // 2)),
        )
        for index, span in enumerate(speech)
    ]
