"""Recognises what a short context may do to a decoder, so that the window is tried again with more.

Every sign is one that good text rarely shows; a false alarm costs time, never words.
"""

from typing import Any, NamedTuple, Self

REPETITIVE = 1.9
"""Compression ratio over which text may have been said twice; ordinary text has 0.8 to 1.6."""
TOKENS_A_SECOND = 9.0
"""More than the fastest of speakers needs; a loop fills all of the decoder's 224."""
LATE = 0.05
"""Seconds before the end of the sound after which no segment can begin."""
PAST = 2.5
"""Seconds past the end at which a segment may still end: the decoder rounds up generously."""
PRECISION = 0.02
"""Seconds that a timestamp counts."""


class Written(NamedTuple):
    """What the decoder wrote for a window, and how sure it was."""

    tokens: list[int]
    log_probability: float
    temperature: float
    compression_ratio: float
    no_speech: float

    @classmethod
    def of(
        cls, result: Any, log_probability: float, temperature: float, compression_ratio: float
    ) -> Self:
        """From what `generate_with_fallback` gives."""
        tokens, silence = result.sequences_ids[0], result.no_speech_prob
        return cls(tokens, log_probability, temperature, compression_ratio, silence)


def doubt(written: Written, seconds: float, timestamps: int) -> str | None:
    """Why the text of a window with so many seconds of sound is not to be believed, if it is not.

    Args:
        timestamps: the first token that is a timestamp.
    """
    times = [PRECISION * (token - timestamps) for token in written.tokens if token >= timestamps]
    if len(times) == len(written.tokens):
        return "empty"
    begins, ends = times[::2], times[1::2]
    if written.tokens[-1] >= timestamps and len(begins) > len(ends):
        begins.pop()  # nothing is said after it
    if max(begins, default=0.0) > seconds - LATE or max(ends, default=0.0) > seconds + PAST:
        return "past_end"
    if written.compression_ratio > REPETITIVE:
        return "repetition"
    if len(written.tokens) > TOKENS_A_SECOND * max(seconds, 1.0):
        return "too_many_tokens"
    return None
