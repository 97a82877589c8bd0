"""How much of a window is encoded: as much as there is, with silence behind it.

faster-whisper fills every window up to 30 s, and a command of three seconds costs as much as a
speech. The encoder takes any length; but the decoder must hear that nothing follows, or it says
the last sentence twice.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
"""Log-mel, shape (bands, frames of 10 ms)."""

FULL = 3000
"""Frames of a whole window."""
MARGINS = (300, 600)
"""Frames of silence behind the sound, for the first try and the second; the third is a whole window."""
QUANTUM = 100
"""Contexts are rounded up to this many frames."""
REST = 100
"""Frames of a rest, heard already without a word in it, that is not heard again: words would be made up."""
FRAMES_A_SECOND = 100


def contexts(frames: int) -> list[int]:
    """Frames to encode for so many of sound: the cheapest first, a whole window last."""
    tries = (-(-(frames + margin) // QUANTUM) * QUANTUM for margin in MARGINS)
    return sorted({FULL, *(min(FULL, context) for context in tries)})


def padded(sound: Features, frames: int) -> Features:
    """Sound with silence behind it: its own lowest value.

    faster-whisper pads with zeros, which on this scale is no silence but a steady noise.
    """
    window = np.full((sound.shape[0], frames), sound.min(), np.float32)
    window[:, : sound.shape[1]] = sound
    return window


class Window:
    """Up to 30 s of features, encoded with as much silence behind them as was needed so far.

    Whatever wants the encoder's output takes `encoded`: nothing is encoded twice.

    Args:
        features: at least one frame behind `seek`.
        encode: the encoder; it gets padded features.
        short: whether to begin with the shortest context.
        seek: the frame at which the window begins.
    """

    def __init__(
        self, features: Features, encode: Callable[[Features], Any], *, short: bool, seek: int = 0
    ) -> None:
        self._features, self._encode, self._short = features, encode, short
        self._sound = features[:, seek : seek + FULL]
        self.seek, self.frames = seek, int(self._sound.shape[1])
        self._contexts = contexts(self.frames) if short else [FULL]
        self.widen()

    @property
    def begin(self) -> float:
        """The second at which it begins."""
        return self.seek / FRAMES_A_SECOND

    @property
    def seconds(self) -> float:
        """How long its sound is."""
        return self.frames / FRAMES_A_SECOND

    @property
    def whole(self) -> bool:
        """Whether there is no longer context to try."""
        return not self._contexts

    def widen(self) -> None:
        """Encode with the next longer context."""
        self.context = self._contexts.pop(0)
        self.encoded = self._encode(padded(self._sound, self.context))

    def fill(self) -> None:
        """Encode as a whole window."""
        del self._contexts[:-1]
        self.widen()

    def next(self, seek: int) -> Self | None:
        """The window from a frame on (behind this one where that would go back); None at the end."""
        end = self.seek + self.frames
        seek = seek if seek > self.seek else end
        left = self._features.shape[1] - seek
        if left <= 0 or (seek < end and left < REST):
            return None
        return type(self)(self._features, self._encode, short=self._short, seek=seek)
