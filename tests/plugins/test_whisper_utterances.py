"""Cutting speech into pieces, and putting times back."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.whisper.utterances import (
    SHORTEST,
    Span,
    Utterance,
    covering,
    cut,
    whole,
)

RATE = 16_000


def spans(*seconds: tuple[float, float]) -> list[Span]:
    return [Span(round(start * RATE), round(end * RATE)) for start, end in seconds]


def seconds(utterances: list[Utterance]) -> list[tuple[float, float]]:
    return [(u.spans[0].start / RATE, u.spans[-1].end / RATE) for u in utterances]


# Cutting


def test_what_is_short_enough_stays_whole():
    assert len(cut(spans((0, 3), (3.5, 8)), 9 * RATE)) == 1


def test_the_longest_pause_is_cut_first():
    pieces = cut(spans((0, 4.2), (4.6, 6), (7.5, 12)), 12 * RATE)
    assert seconds(pieces) == [(0, 6.75), (6.75, 12)]


def test_pieces_still_too_long_are_cut_again():
    pieces = cut(spans((0, 5), (5.5, 10), (11, 16), (16.2, 20)), 20 * RATE)
    assert [len(piece.spans) for piece in pieces] == [1, 1, 1]
    assert seconds(pieces)[2] == (10.5, 20)
    pieces = cut(spans((0, 5), (5.5, 10), (11, 16), (16.2, 21)), 21 * RATE)
    assert [len(piece.spans) for piece in pieces] == [1, 1, 1, 1]


def test_speech_without_a_pause_is_never_cut():
    assert seconds(cut(spans((2, 28)), 30 * RATE)) == [(1, 29)]


def test_no_piece_is_cut_off_so_short_that_it_is_misheard():
    assert len(cut(spans((0, 2), (3, 10.5)), 11 * RATE)) == 1


def test_no_speech_is_no_utterance():
    assert cut([], RATE) == whole([], RATE) == []


def test_hours_of_speech_are_cut_without_end_of_the_stack():
    many = spans(*((5.0 * n, 5.0 * n + 4.5) for n in range(3000)))
    assert len(cut(many, 15_000 * RATE)) == 3000


@given(st.lists(st.tuples(st.integers(1, 8 * RATE), st.integers(1, 3 * RATE)), max_size=30))
def test_pieces_keep_every_span_whole_and_in_order(pairs):
    edges = list(itertools.accumulate(itertools.chain.from_iterable(pairs), initial=0))
    found = [Span(*edge) for edge in zip(edges[0::2], edges[1::2], strict=False)]
    length = edges[-1]
    pieces = cut(found, length)
    kept = [span for piece in pieces for span in piece.spans]
    for span in found:
        assert sum(one.start <= span.start and span.end <= one.end for one in kept) == 1
    assert all(before.end <= after.start for before, after in itertools.pairwise(kept))
    if kept:
        assert kept[0].start >= 0
        assert kept[-1].end <= length
    for piece in pieces:
        assert all(before.end < after.start for before, after in itertools.pairwise(piece.spans))
        first, last = piece.spans[0].start, piece.spans[-1].end
        spoken = [span for span in found if first <= span.start and span.end <= last]
        if len(pieces) > 1:
            assert (spoken[-1].end - spoken[0].start) / RATE >= SHORTEST


@given(st.lists(st.integers(1, 5 * RATE), min_size=2, max_size=30))
def test_covering_leaves_nothing_out_and_cuts_within_silence(lengths):
    edges = list(itertools.accumulate(lengths))
    found = [Span(*edge) for edge in zip(edges[0::2], edges[1::2], strict=False)]
    length = edges[-1] + 7
    tiles = [piece.spans[0] for piece in covering(cut(found, length), length)]
    assert (tiles[0].start, tiles[-1].end) == (0, length)
    for before, after in itertools.pairwise(tiles):
        assert before.end == after.start
        assert not any(span.start < before.end < span.end for span in found)


# What is heard


def test_speech_keeps_its_surroundings_and_long_silence_is_left_out():
    (heard,) = whole(spans((1, 2), (2.5, 3), (9, 10)), 20 * RATE)
    assert heard.spans == tuple(spans((0, 4), (8, 11)))
    clip = np.arange(20 * RATE, dtype=np.float32)
    samples = heard.samples(clip)
    assert len(samples) == 7 * RATE
    assert samples[0] == 0
    assert samples[-1] == 11 * RATE - 1


@pytest.mark.parametrize(
    ("speech", "begin"), [((3, 4), 2.6), ((1.01, 4), 0.61), ((1, 4), 0.0), ((0.2, 4), 0.0)]
)
def test_behind_silence_that_was_left_out_nothing_is_said_before_what_surrounds_speech(
    speech, begin
):
    (heard,) = whole(spans(speech), 9 * RATE)
    assert heard.begin == pytest.approx(begin, abs=0.01)
    assert heard.begin >= begin


def test_the_surroundings_end_where_the_clip_does():
    (heard,) = whole(spans((0.1, 1)), round(1.2 * RATE))
    assert heard.spans == tuple(spans((0, 1.2)))
    assert heard.end == 1.2


# Times


@pytest.fixture
def joined() -> Utterance:
    """Five seconds from the first, five from the twentieth."""
    return Utterance(tuple(spans((1, 6), (20, 25))))


def test_moments_move_by_the_silence_left_out_before_them(joined):
    assert [joined.at(0), joined.at(4), joined.at(5), joined.at(9)] == [1, 5, 20, 24]


def test_a_segment_on_one_side_of_a_joint_stays_there(joined):
    assert joined.between(1, 4) == (2, 5)
    assert joined.between(5, 9) == (20, 24)
    assert joined.between(4.7, 5) == (5.7, 6)


def test_a_segment_over_a_joint_spans_the_silence(joined):
    assert joined.between(3, 8) == (4, 23)


def test_a_segment_does_not_begin_in_the_silence_before_its_words(joined):
    assert joined.between(4.7, 8) == (20, 23)


def test_a_segment_does_not_end_in_the_silence_after_its_words(joined):
    assert joined.between(2, 5.3) == (3, 6)


def test_an_end_past_all_that_was_heard_stays_in_the_last_span(joined):
    assert joined.between(6, 10.4) == (21, 25.4)
    assert joined.end == 25


@given(st.floats(0, 12), st.floats(0, 12))
def test_times_keep_their_order(one, other):
    start, end = sorted((one, other))
    utterance = Utterance(tuple(spans((1, 6), (6, 7), (20, 25))))
    began, ended = utterance.between(start, end)
    assert began <= ended + 1e-9
    assert utterance.at(start) <= utterance.at(end)
