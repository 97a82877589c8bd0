"""Windows' transcripts become one: right times after an hour, no word lost or doubled."""

import random

import pytest

from bus_worker.jobs.joining import Joined, WindowResult, join
from bus_worker.messages import ModelInfo, Segment, Timings, Transcript, Word, pack, unpack

RATE = 16_000


def segment(start: float, end: float, text: str, *, seek: int = 0, words: bool = True) -> Segment:
    said = [Word(text, start, end, 0.9)] if words else None
    return Segment(
        id=7, seek=seek, start=start, end=end, text=text, tokens=[1, 2], confidence=-0.2,
        no_speech_prob=0.01, compression_ratio=1.1, temperature=0.0, words=said,
    )  # fmt: skip


def window(start: int, *segments: Segment, length: int = 30 * RATE, **more: object) -> WindowResult:
    text = "".join(one.text for one in segments).strip()
    plain = {"text": text, "language": "en", "language_probability": 0.9, "warnings": []}
    return WindowResult(start=start, length=length, segments=list(segments), **(plain | more))


def test_times_are_those_of_the_recording():
    whole = join([window(0, segment(0.5, 2.25, " One")), window(1_000_000, segment(1, 2, " two"))])
    assert [(one.id, one.seek, one.start, one.end) for one in whole.segments] == [
        (0, 0, 0.5, 2.25),
        (1, 6250, 63.5, 64.5),
    ]
    (word,) = whole.segments[1].words or []
    assert (word.word, word.start, word.end) == (" two", 63.5, 64.5)


def test_times_do_not_drift_in_four_hours():
    dice, start, windows, spoken = random.Random(1), 0, [], []
    while start < 4 * 3600 * RATE:
        length = dice.randint(20 * RATE, 30 * RATE)
        spoken.append(start / RATE + 3.3)
        windows.append(window(start, segment(3.3, 3.9, " tick"), length=length))
        start += length
    whole = join(windows)
    assert whole.duration == start / RATE
    assert max(abs(a.start - b) for a, b in zip(whole.segments, spoken, strict=True)) <= 0.0051
    assert [one.id for one in whole.segments] == list(range(len(windows)))
    assert max(abs(one.seek / 100 - one.start + 3.3) for one in whole.segments) < 0.02


def test_the_order_of_results_does_not_matter():
    windows = [window(n * 30 * RATE, segment(1, 2, f" {n}.")) for n in range(12)]
    shuffled = random.Random(3).sample(windows, 12)
    assert join(iter(shuffled)) == join(windows)
    assert join(windows).text == " ".join(f"{n}." for n in range(12))


def test_a_segment_ends_with_its_window():
    last = segment(9.5, 30, " hello")
    whole = join([window(0, last, length=10 * RATE), window(10 * RATE, segment(0, 1, " you"))])
    assert [(one.start, one.end) for one in whole.segments] == [(9.5, 10), (10, 11)]
    assert whole.segments[0].words == [Word(" hello", 9.5, 10, 0.9)]
    assert whole.text == "hello you"


@pytest.mark.parametrize("words", [None, []])
def test_words_that_nobody_asked_for_stay_away(words):
    plain = segment(0, 1, " hi", words=False)
    (one,) = join([window(0, Segment(**{**fields(plain), "words": words}))]).segments
    assert one.words == words


def fields(one: Segment) -> dict:
    return {name: getattr(one, name) for name in Segment.__slots__}


def test_texts_are_joined_as_their_language_writes():
    english = [window(0, text="So it is."), window(1, text=""), window(2, text="Is it?")]
    assert join(english).text == "So it is. Is it?"
    assert join([window(0, text="你好。"), window(1, text="再见")]).text == "你好。再见"


def test_the_language_is_the_first_that_was_heard():
    silent = window(0, language=None, language_probability=None)
    whole = join([silent, window(1, language="de", language_probability=0.7), window(2)])
    assert (whole.language, whole.language_probability) == ("de", 0.7)
    assert (join([silent]).language, join([silent]).language_probability) == (None, None)


@pytest.mark.parametrize(
    ("windows", "whole"),
    [
        ([[], []], []),
        ([["language_uncertain"], ["odd", "language_uncertain"]], ["language_uncertain", "odd"]),
        ([["silent_audio"], []], []),
        ([["silent_audio"], ["no_speech", "odd"], []], ["odd"]),
        ([["silent_audio"], ["silent_audio"]], ["silent_audio"]),
        ([["silent_audio"], ["no_speech"]], ["no_speech"]),
        ([["no_speech"], ["no_speech"]], ["no_speech"]),
    ],
)
def test_warnings_come_once_and_silence_only_if_all_is_silent(windows, whole):
    joined = join(window(n, warnings=warnings) for n, warnings in enumerate(windows))
    assert joined.warnings == whole


def test_nothing_joined_is_nothing():
    assert join([]) == Joined("", None, None, 0.0, [], [])


@pytest.mark.parametrize("words", [True, False])
def test_a_result_travels_as_plain_maps(words):
    result = window(
        480_000, segment(1, 2, " one", words=words), segment(2, 3, " two"), warnings=["odd"]
    )
    assert WindowResult.from_map(unpack(pack(result.to_map()))) == result
    assert WindowResult.from_map({**result.to_map(), "later": 1}) == result
    with pytest.raises(KeyError):
        WindowResult.from_map({"start": 1})


def test_a_result_is_made_of_a_transcript():
    said = Transcript(
        request_id="r", text="One.", language="en", language_probability=0.8, duration=29.99,
        segments=[segment(0, 1, " One.")], model=ModelInfo("base"), timings=Timings(),
        real_time_factor=0.1, worker_id="w", warnings=["language_uncertain"],
    )  # fmt: skip
    result = WindowResult.of(said, start=1600, length=479_999)
    assert (result.start, result.length, result.text) == (1600, 479_999, "One.")
    assert join([result]).warnings == ["language_uncertain"]
    assert join([result]).segments[0].start == 0.1
