"""A long recording as windows of at most 30 s, cut where nobody speaks."""

import contextlib
from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from bus_worker.audio import FORMATS, SAMPLE_RATE, blocks

__all__ = ["EARLIEST", "LONGEST", "Window", "cut", "from_pcm", "read_windows", "to_pcm"]

Samples = npt.NDArray[np.float32]

LONGEST = 30.0
"""Seconds: what the model hears at once."""
EARLIEST, LEAST_REST = 2 / 3, 1 / 6
"""Of the longest: where a cut may be, and what must be left behind it for a window of its own."""
FRAME = SAMPLE_RATE // 100
"""Samples of one level: 10 ms."""
MARGIN, AMPLE = 10, 40
"""Frames on either side of a cut in a pause: the fewest that make it one, and enough of them."""
LOW, HIGH = 1, 95
"""Percentiles of the levels that stand for a window's own quiet and loud."""
DEPTH, QUIET = 50.0, 0.35
"""Decibels under the loudest that are listened to; a pause is as near to the quietest of them."""
FAINT, LOUD = 1e-12, 1e30
"""The least and the most power that is told from less and more."""
FULL = 32767
FAINTEST = 1e-20
"""The loudest sample of a window without any: what it is divided by must not overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of a recording: the samples from number `start` on."""

    number: int
    start: int
    samples: Samples


def read_windows(
    file: bytes | BinaryIO,
    *,
    longest: float = LONGEST,
    max_duration: float | None = None,
    formats: Collection[str] = FORMATS,
) -> Generator[Window]:
    """A recording's windows, read as a stream; closing it at any time frees the decoder.

    Args:
        file: as `bus_worker.audio.blocks` takes it.
        longest: seconds of a window.
        max_duration: seconds of the whole.
        formats: those that are allowed.

    Raises:
        BadAudio: as `bus_worker.audio.blocks` says; so with `AudioTooLong` and `OSError`.
    """
    stream = blocks(file, formats=formats, max_duration=max_duration)
    with contextlib.closing(stream):
        yield from cut(stream, longest=longest)


def cut(blocks: Iterable[Samples], *, longest: float = LONGEST) -> Generator[Window]:
    """Every sample once and in order, in windows; the same cuts whatever the blocks' sizes.

    A cut lies in the last third of a window, in the middle of a pause or else where it is least
    loud. So the words at its sides are whole, and the windows are nearly full.

    Raises:
        ValueError: `longest` is not what a window can be.
    """
    if not 1 <= longest <= LONGEST:
        raise ValueError(f"a window has 1 to {LONGEST:g} s, not {longest:g}")
    most = int(longest * SAMPLE_RATE)
    least = int(most * LEAST_REST)
    number, start = 0, 0
    waiting: list[Samples] = []
    length = 0
    for block in blocks:
        waiting.append(block)
        length += len(block)
        if length < most + least:
            continue
        held = np.concatenate(waiting)
        while len(held) >= most + least:
            at = _place(held[: most + least], int(most * EARLIEST), most)
            yield Window(number, start, held[:at])
            number, start, held = number + 1, start + at, held[at:]
        waiting, length = [held], len(held)
    held = np.concatenate([*waiting, np.zeros(0, np.float32)])
    if len(held) > most:
        at = _place(held, int(most * EARLIEST), len(held) - least)
        yield Window(number, start, held[:at])
        number, start, held = number + 1, start + at, held[at:]
    if len(held):
        yield Window(number, start, held)


def _place(samples: Samples, low: int, high: int) -> int:
    """The best place for a cut between two: in a pause, else where it is least loud."""
    power = _power(samples)
    first, last = -(-low // FRAME), high // FRAME
    in_pause = _pause(power, first, last)
    if in_pause is not None:
        return in_pause * FRAME
    sums = np.convolve(power[first - MARGIN : last + MARGIN], np.ones(2 * MARGIN), "valid")
    return (first + int(sums.argmin())) * FRAME


def _power(samples: Samples) -> Samples:
    """That of each 10 ms, without what does not swing (a cheap sound card's offset)."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    with np.errstate(over="ignore", invalid="ignore"):  # a float file may hold 1e38: that is loud
        power: Samples = np.einsum("ij,ij->i", frames, frames) / FRAME - frames.mean(axis=1) ** 2
    return np.nan_to_num(power, nan=LOUD).clip(FAINT, LOUD)


def _pause(power: Samples, first: int, last: int) -> int | None:
    """The frame from which it is farthest to any sound, the last one if several are far enough.

    In a long pause that is near its end, so that the window takes as much of it as it can.
    """
    levels = 10 * np.log10(power)
    floor, top = np.percentile(levels, (LOW, HIGH))
    floor = max(floor, top - DEPTH)
    quiet = levels <= floor + QUIET * (top - floor)
    edges = np.flatnonzero(np.diff(quiet, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    places = np.clip(np.maximum((starts + ends) // 2, ends - AMPLE), first, last)
    margins = np.minimum(np.minimum(places - starts, ends - places), AMPLE)
    if not len(margins) or margins.max() < MARGIN:
        return None
    return int(places[np.flatnonzero(margins == margins.max())[-1]])


def to_pcm(samples: Samples) -> tuple[bytes, float]:
    """Samples as 16-bit integers and what full scale means: a quiet recording loses nothing.

    A window of 30 s has 960 000 bytes, so that it fits a message.
    """
    scale = float(np.abs(samples).max(initial=FAINTEST))
    return np.rint(samples * (FULL / scale)).astype("<i2").tobytes(), scale


def from_pcm(pcm: bytes, scale: float) -> Samples:
    """The samples that `to_pcm` was given."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(scale / FULL)
