"""What the guard believes of a window's text, and what not."""

import pytest

from plugins.whisper.guard import Written, doubt

STAMPS = 1000
"""The first token that is a timestamp."""


def at(second: float) -> int:
    return STAMPS + round(second / 0.02)


def written(*tokens: int, compression_ratio: float = 1.2) -> Written:
    return Written(list(tokens), -0.3, 0.0, compression_ratio, 0.01)


def said(*times: float, words: int = 5) -> Written:
    """Segments with such beginnings and ends, one after the other."""
    pairs = zip(times[::2], times[1::2], strict=True)
    return written(*(t for a, b in pairs for t in (at(a), *range(words), at(b))))


@pytest.mark.parametrize(
    "good",
    [
        said(0, 3.9),
        said(0, 5.0),  # rounded up to the next second
        said(0, 2, 2, 4),
        written(at(0), 1, 2, at(2), at(2)),  # nothing is said after the last
        written(at(0), 1, 2, at(4), at(4)),
        written(at(0), 1, 2, 3),  # never ended
        written(1, 2, 3),
    ],
)
def test_ordinary_text_is_believed(good):
    assert doubt(good, 4.0, STAMPS) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (written(), "empty"),
        (written(at(0), at(4)), "empty"),
        (said(0, 3.9, 4, 7.5), "past_end"),
        (said(0, 3.9, 3.96, 4.2), "past_end"),
        (written(at(0), 1, 2, at(4), at(4), 1, 2), "past_end"),
        (said(0, 6.6), "past_end"),
        (written(at(0), 1, 2, at(4), compression_ratio=1.95), "repetition"),
        (said(0, 3.9, words=40), "too_many_tokens"),
    ],
)
def test_what_a_short_context_does_is_doubted(bad, why):
    assert doubt(bad, 4.0, STAMPS) == why


def test_a_word_in_a_very_short_clip_is_not_too_many_tokens():
    assert doubt(said(0, 0.3, words=5), 0.3, STAMPS) is None
