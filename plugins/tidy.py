"""Write the text as a person would."""

import re
from dataclasses import replace

from bus_worker.plugin import Draft, stage

SPACES = re.compile(r"[^\S\u3000]+")
"""White space but for the ideographic space, which Japanese writes on purpose."""
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, kana, Han and their punctuation: no space between words."""


@stage(needs=("segments",), gives=("text",), version="1")
async def tidy(draft: Draft, _: object) -> None:
    """Clean white space in each segment and join the segments to the text."""
    draft.text = _join([segment.text for segment in draft.segments])
    written = [replace(segment, text=_clean(segment.text)) for segment in draft.segments]
    draft.segments = [
        replace(segment, id=number)
        for number, segment in enumerate(segment for segment in written if segment.text)
    ]


def _clean(text: str) -> str:
    return SPACES.sub(" ", text).strip()


def _join(texts: list[str]) -> str:
    """One text. Whisper begins a segment with a space where the language has spaces.

    Where it forgets (another engine's segments, or stripped ones), a space goes between two
    segments unless one side is written without.
    """
    joined = ""
    for text in texts:
        if joined and text and not _touching(joined[-1], text[0]):
            joined += " "
        joined += text
    return _clean(joined)


def _touching(before: str, after: str) -> bool:
    """Whether two segments meet rightly as they are."""
    return (
        before.isspace()
        or after.isspace()
        or bool(UNSPACED.match(before))
        or bool(UNSPACED.match(after))
    )
