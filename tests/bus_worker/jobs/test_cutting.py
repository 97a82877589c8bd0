"""Windows of a recording: every sample once, cut in pauses, the same whatever the blocks."""

import itertools
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_worker.audio import SAMPLE_RATE
from bus_worker.errors import AudioTooLong, BadAudio
from bus_worker.jobs.cutting import LONGEST, Window, cut, from_pcm, read_windows, to_pcm
from bus_worker.messages import pack
from tests.helpers.tones import encode, noise, tone, wav_bytes

DESCRIPTORS = Path("/proc/self/fd")
Samples = npt.NDArray[np.float32]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def whole(windows: list[Window]) -> Samples:
    return np.concatenate([window.samples for window in windows])


def in_blocks(samples: Samples, sizes: list[int]) -> list[Samples]:
    blocks, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(samples):
            return blocks
        blocks.append(samples[at : at + size])
        at += size
    return blocks


def babble(seconds: float, seed: int) -> Samples:
    """Noise that comes and goes as speech does, over a faint hum."""
    dice = np.random.default_rng(seed)
    parts, length = [], 0
    while length < seconds * SAMPLE_RATE:
        loud = noise(dice.uniform(0.3, 4), level=0.1, seed=int(dice.integers(1 << 30)))
        quiet = noise(dice.uniform(0.02, 0.9), level=0.001, seed=int(dice.integers(1 << 30)))
        parts += [loud, quiet]
        length += len(loud) + len(quiet)
    return np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.floats(0.001, 40),
    longest=st.floats(1, 9),
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 30_000), min_size=1, max_size=4).filter(lambda s: sum(s) > 2000),
)
def test_every_sample_is_in_one_window_and_blocks_do_not_matter(
    seconds: float, longest: float, seed: int, sizes: list[int]
):
    samples = babble(seconds, seed)
    windows = list(cut(in_blocks(samples, sizes), longest=longest))
    np.testing.assert_array_equal(whole([Window(0, 0, silence(0)), *windows]), samples)
    lengths = [len(window.samples) for window in windows]
    assert [window.number for window in windows] == list(range(len(windows)))
    assert [window.start for window in windows] == [sum(lengths[:n]) for n in range(len(lengths))]
    assert max(lengths, default=0) <= longest * SAMPLE_RATE
    assert len(windows) < 2 or min(lengths) >= longest * SAMPLE_RATE / 6 - 1
    again = list(cut([samples], longest=longest))
    assert [window.start for window in again] == [window.start for window in windows]


def test_it_cuts_in_the_middle_of_the_longest_pause():
    parts = [noise(22), silence(0.4), noise(2), silence(0.7), noise(1.5), silence(0.3), noise(20)]
    first, second = cut([np.concatenate(parts)])
    assert second.start == pytest.approx((22 + 0.4 + 2 + 0.35) * SAMPLE_RATE, abs=160)
    assert len(first.samples) == second.start


def test_of_pauses_that_are_long_enough_it_takes_the_last():
    parts = [noise(21), silence(1.4), noise(3), silence(1), noise(2), silence(0.3), noise(20)]
    _, second = cut([np.concatenate(parts)])
    assert 25.4 + 0.4 <= second.start / SAMPLE_RATE <= 26.4 - 0.4


def test_a_pause_in_a_noisy_room_is_a_pause():
    parts = [noise(24, level=0.1), silence(0.5), noise(20, level=0.1)]
    room = noise(44.5, level=0.02, seed=3)
    _, second = cut([np.concatenate(parts) + room])
    assert second.start == pytest.approx(24.25 * SAMPLE_RATE, abs=800)


def test_an_offset_of_the_sound_card_hides_no_pause():
    parts = [noise(24, level=0.01), silence(0.5), noise(20, level=0.01)]
    _, second = cut([np.concatenate(parts) + np.float32(0.4)])
    assert second.start == pytest.approx(24.25 * SAMPLE_RATE, abs=160)


def test_samples_that_are_far_too_loud_are_cut_all_the_same():
    parts = [noise(24), silence(0.5), noise(20)]
    _, second = cut([np.concatenate(parts) * np.float32(3e37)])
    assert second.start == pytest.approx(24.25 * SAMPLE_RATE, abs=160)


def test_without_a_pause_it_cuts_where_it_is_least_loud():
    loud, less = noise(45), slice(27 * SAMPLE_RATE, int(27.2 * SAMPLE_RATE))
    loud[less] *= 0.7
    _, second = cut([loud])
    assert second.start == pytest.approx(27.1 * SAMPLE_RATE, abs=320)


@pytest.mark.parametrize("seconds", [30.001, 31, 34.9, 35.1])
def test_no_last_window_is_a_snippet(seconds: float):
    lengths = [len(window.samples) / SAMPLE_RATE for window in cut([noise(seconds)])]
    assert len(lengths) == 2
    assert min(lengths) >= 5


def test_what_fits_one_window_is_one():
    (window,) = cut([noise(10), noise(20)])
    assert len(window.samples) == 30 * SAMPLE_RATE
    assert list(cut([])) == []


def test_silence_is_cut_into_full_windows():
    lengths = [len(window.samples) for window in cut([silence(100)])]
    assert lengths[:-1] == [(30 * SAMPLE_RATE)] * 3


@pytest.mark.parametrize("longest", [0.5, 30.01, float("nan")])
def test_a_window_is_no_longer_than_the_model_hears(longest: float):
    with pytest.raises(ValueError, match="a window has 1 to 30 s"):
        next(cut([noise(1)], longest=longest))


def test_it_holds_little_more_than_a_window():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield noise(1, seed=taken)

    with closing(cut(endless())) as windows:
        for window in itertools.islice(windows, 5):
            behind = taken * SAMPLE_RATE - window.start
            assert behind <= 36 * SAMPLE_RATE


@pytest.mark.parametrize("format_", ["wav", "flac", "mp3", "opus", "m4a"])
def test_a_file_on_disk_is_read_as_windows(format_: str):
    with tempfile.TemporaryFile() as file:
        file.write(encode(babble(75, seed=4), 48000, format_))  # 25 s: played three times as fast
        file.flush()
        windows = list(read_windows(file, longest=10))
        again = list(read_windows(file, longest=10))
    assert len(windows) >= 3
    assert len(whole(windows)) == pytest.approx(25 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)
    np.testing.assert_array_equal(whole(windows), whole(again))
    assert [window.start for window in windows] == [window.start for window in again]


def test_a_recording_that_is_too_long_is_refused_before_it_is_read():
    windows = read_windows(wav_bytes(noise(300)), max_duration=65)
    with pytest.raises(AudioTooLong, match=r"at least 65\.\d s long; the limit is 65 s"):
        assert len(list(itertools.islice(windows, 3))) < 3


def test_what_may_not_come_in_is_refused():
    with pytest.raises(BadAudio, match="wav is not allowed"):
        next(read_windows(wav_bytes(tone(1)), formats=("mp3",)))


def test_left_in_the_middle_it_lets_go_of_file_and_decoder():
    before = set(DESCRIPTORS.iterdir())
    with tempfile.TemporaryFile() as file:
        file.write(encode(noise(60), 16000, "mp3"))
        file.flush()
        with closing(read_windows(file, longest=2)) as windows:
            next(windows)
    assert set(DESCRIPTORS.iterdir()) == before


@pytest.mark.parametrize("level", [3e36, 1.0, 0.003, 1e-6, 1e-18])
def test_as_pcm_even_a_whisper_loses_nothing(level: float):
    samples = noise(1) * np.float32(10 * level)
    pcm, scale = to_pcm(samples)
    error = np.abs(from_pcm(pcm, scale) - samples).max()
    assert 0 < error < np.abs(samples).max() / 32767


def test_pcm_of_silence_is_silence_and_loud_samples_do_not_wrap():
    np.testing.assert_array_equal(from_pcm(*to_pcm(silence(1))), silence(1))
    loud = np.array([3.5, -3.5, 0, 1], np.float32)
    np.testing.assert_allclose(from_pcm(*to_pcm(loud)), loud, atol=3.5 / 32767)
    assert from_pcm(*to_pcm(silence(0))).dtype == np.float32


def test_a_full_window_fits_a_message_with_room_to_spare():
    pcm, scale = to_pcm(noise(LONGEST))
    assert len(pack({"pcm": pcm, "scale": scale})) < (1 << 20) - 64_000
