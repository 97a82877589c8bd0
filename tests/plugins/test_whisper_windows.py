"""How much of a window is encoded, and where the next begins."""

import numpy as np
import pytest

from plugins.whisper.windows import FULL, Window, contexts, padded


def features(frames: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 1.5, (80, frames)).astype(np.float32)


class Encoder:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []

    def __call__(self, window: np.ndarray) -> int:
        self.given.append(window)
        return len(self.given)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (1, [400, 700, FULL]),
        (300, [600, 900, FULL]),
        (301, [700, 1000, FULL]),
        (2400, [2700, FULL]),
        (2750, [FULL]),
        (FULL, [FULL]),
    ],
)
def test_contexts_are_the_sound_and_silence_rounded_up_and_end_with_a_whole_window(
    frames, expected
):
    assert contexts(frames) == expected


def test_what_is_padded_with_is_the_lowest_value_and_the_sound_stays():
    sound = features(250)
    window = padded(sound, 600)
    assert window.shape == (80, 600)
    assert window.dtype == np.float32
    assert (window[:, :250] == sound).all()
    assert (window[:, 250:] == sound.min()).all()


def test_a_window_is_encoded_once_until_more_is_asked_for():
    encode = Encoder()
    window = Window(features(350), encode, short=True)
    assert (window.context, window.encoded, window.seconds) == (700, 1, 3.5)
    window.widen()
    assert (window.context, window.encoded, window.whole) == (1000, 2, False)
    window.widen()
    assert (window.context, window.whole) == (FULL, True)
    assert [given.shape[1] for given in encode.given] == [700, 1000, FULL]


def test_a_window_can_be_filled_at_once():
    window = Window(features(350), Encoder(), short=True)
    window.fill()
    assert (window.context, window.encoded, window.whole) == (FULL, 2, True)


def test_without_short_context_every_window_is_whole():
    window = Window(features(350), Encoder(), short=False)
    assert (window.context, window.whole) == (FULL, True)


def test_the_last_window_of_long_sound_is_short_too():
    encode = Encoder()
    last = Window(features(3400), encode, short=True).next(FULL)
    assert last is not None
    assert (last.begin, last.frames, last.context) == (30.0, 400, 700)
    assert last.next(FULL + 400) is None


def test_a_rest_that_was_heard_without_a_word_in_it_is_not_heard_again():
    window = Window(features(1200), Encoder(), short=True)
    assert window.next(1101) is None
    rest = window.next(1100)
    assert rest is not None
    assert rest.frames == 100
    unheard = Window(features(3050), Encoder(), short=True).next(FULL)
    assert unheard is not None, "the window ended before it"


@pytest.mark.parametrize("seek", [0, 150, 200])
def test_windows_always_go_on(seek):
    window = Window(features(FULL + 900), Encoder(), short=True, seek=200)
    after = window.next(seek)
    assert after is not None
    assert after.seek == FULL + 200
