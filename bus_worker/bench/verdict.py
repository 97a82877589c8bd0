"""Whose words are better: word error rates, and whether a difference between two is noise."""

import functools
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from bus_worker.bench.clips import Clip
from bus_worker.bench.engines import Heard

__all__ = ["Errors", "Verdict", "compared", "counted", "rate", "times_agree"]

DRAWS = 10_000
READ_WELL, UNREADABLE = 0.10, 0.40
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo", "yue"})
"""Written without spaces between words: there every letter counts as one."""
NEAR = 0.1
"""Seconds by which two times of one word may differ."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Word errors in a clip, and its words."""

    wrong: int
    words: int

    @property
    def rate(self) -> float:
        """Errors a word."""
        return self.wrong / self.words if self.words else float(self.wrong > 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One engine against another on the same clips."""

    difference: float
    """Of the word error rates; below zero the first is better."""
    low: float
    high: float
    """Between these the difference lies in 95 % of the draws."""
    better: int
    worse: int
    """Clips in which the first made fewer or more errors."""
    ruined: list[str]
    """Clips that the other reads well and the first makes unreadable."""


def counted(clips: Sequence[Clip], heard: Mapping[str, Heard]) -> list[Errors]:
    """The errors in each clip, spelling, numbers and punctuation made alike on both sides."""
    import jiwer  # noqa: PLC0415 - a tool of this bench alone

    errors = []
    for clip in clips:
        normal = _normaliser(clip.language)
        said, text = normal(clip.text), normal(heard[clip.name].text)
        found = jiwer.process_words(said, text)
        errors.append(
            Errors(
                found.substitutions + found.deletions + found.insertions,
                found.hits + found.substitutions + found.deletions,
            )
        )
    return errors


def rate(errors: Sequence[Errors]) -> float:
    """Errors a word over all clips."""
    return sum(one.wrong for one in errors) / max(1, sum(one.words for one in errors))


def compared(
    clips: Sequence[Clip], first: Sequence[Errors], other: Sequence[Errors], seed: int = 1
) -> Verdict:
    """The first engine's errors against the other's: a paired bootstrap over clips."""
    dice = random.Random(seed)  # noqa: S311 - a statistic, no secret
    pairs = list(zip(first, other, strict=True))
    draws = sorted(_difference(dice.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    return Verdict(
        difference=_difference(pairs),
        low=draws[int(0.025 * DRAWS)],
        high=draws[int(0.975 * DRAWS) - 1],
        better=sum(a.wrong < b.wrong for a, b in pairs),
        worse=sum(a.wrong > b.wrong for a, b in pairs),
        ruined=[
            clip.name
            for clip, (a, b) in zip(clips, pairs, strict=True)
            if b.rate <= READ_WELL and a.rate > UNREADABLE
        ],
    )


def times_agree(first: Mapping[str, Heard], other: Mapping[str, Heard]) -> tuple[int, int]:
    """Of words that both heard in the same places, how many have the same times, and how many there are."""
    near = equal = 0
    for name, heard in first.items():
        ours, theirs = heard.words, other[name].words
        said, read = ([word[0].strip().lower() for word in words] for words in (ours, theirs))
        for block in SequenceMatcher(None, said, read, autojunk=False).get_matching_blocks():
            for step in range(block.size):
                (_, *a), (_, *b) = ours[block.a + step], theirs[block.b + step]
                equal += 1
                near += all(abs(x - y) <= NEAR + 1e-6 for x, y in zip(a, b, strict=True))
    return near, equal


def _difference(pairs: Sequence[tuple[Errors, Errors]]) -> float:
    words = max(1, sum(a.words for a, _ in pairs))
    return sum(a.wrong - b.wrong for a, b in pairs) / words


@functools.cache
def _normaliser(language: str) -> Callable[[str], str]:
    """Whisper's own way to compare texts."""
    with warnings.catch_warnings():
        # Its source has an invalid escape, which warns when it is first compiled.
        warnings.simplefilter("ignore")
        from whisper_normalizer.basic import BasicTextNormalizer  # noqa: PLC0415 - as jiwer
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415 - as jiwer
    if language == "en":
        english: Callable[..., Any] = EnglishTextNormalizer
        return english()  # type: ignore[no-any-return]  # has no types
    return BasicTextNormalizer(split_letters=language in UNSPACED)
