"""A transcript as people and players want it: segments joined to one text, json, srt, vtt."""

import json
import re
from collections.abc import Callable, Iterable, Iterator

from bus_worker.messages import Segment, Transcript

__all__ = ["FORMATS", "RunningText", "joined", "joint", "to_json", "to_srt", "to_text", "to_vtt"]

_ARROW = re.compile(r"-{2,}>")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\0": "\ufffd"})

_SPACES = re.compile(r"[^\S\u3000]+")
"""White space but for the ideographic space, which Japanese writes on purpose."""
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana, Han and their punctuation: no space between words."""


class RunningText:
    """One text made of segments as they come; `add` tells what each of them adds to it."""

    def __init__(self) -> None:
        self._held = ""
        """White space that is part of the text only if something follows."""
        self._last = ""

    def add(self, text: str) -> str:
        """What a segment adds: its words with single spaces, and the space before them if there is one."""
        more = _SPACES.sub(" ", self._held + joint(self._held or self._last, text) + text)
        if not self._last:
            more = more.lstrip()
        words = more.rstrip()
        self._held = more[len(words) :]
        self._last = words[-1:] or self._last
        return words


def joined(texts: Iterable[str]) -> str:
    """The one text of segments: single spaces, none at either end."""
    running = RunningText()
    return "".join(running.add(text) for text in texts)


def joint(before: str, after: str) -> str:
    """What goes between two segments' texts: a space, where the language has spaces and none is there.

    Whisper begins a segment with a space where its language has them; other engines forget, and
    segments that were cleaned have lost it.
    """
    if not before or not after:
        return ""
    sides = (before[-1], after[0])
    return "" if any(side.isspace() or _UNSPACED.match(side) for side in sides) else " "


def to_text(transcript: Transcript) -> str:
    """What was said, on one line."""
    return " ".join(transcript.text.split()) + "\n"


def to_json(transcript: Transcript, **more: object) -> str:
    """The reply as it came over the bus, `more` before it, on one line."""
    return json.dumps({**more, **transcript.to_map()}, ensure_ascii=False) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, a comma before the milliseconds.

    There is no way to escape in SubRip: an arrow in the text, which would start a cue, is shortened.
    """
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_ARROW.sub('->', text)}\n"
        for number, (start, end, text) in enumerate(_cues(transcript.segments), 1)
    )
    return "\n".join(cues)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT: a header, a point before the milliseconds, `&`, `<` and `>` escaped."""
    cues = (
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text.translate(_ESCAPES)}\n"
        for start, end, text in _cues(transcript.segments)
    )
    return "\n".join(["WEBVTT\n", *cues])


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
}


def _cues(segments: list[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds and the text of each segment that has any.

    A blank line would end the cue, and a cue that does not end after its start is invalid.
    """
    for segment in segments:
        lines = (line.strip() for line in segment.text.splitlines())
        text = "\n".join(line for line in lines if line)
        start = max(0, round(segment.start * 1000))
        if text:
            yield start, max(start + 1, round(segment.end * 1000)), text


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{rest:03d}"
