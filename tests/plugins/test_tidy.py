"""The text reads as a person would write it."""

import pytest

from bus_worker.messages import Segment
from bus_worker.plugin import Draft
from plugins.tidy import tidy


def segment(number: int, text: str) -> Segment:
    return Segment(number, 0, number, number + 1, text, [1], -0.2, 0.0, 1.0, 0.0)


async def written(*texts: str) -> Draft:
    draft = Draft(segments=[segment(number, text) for number, text in enumerate(texts)])
    await tidy.run(draft, tidy.options())
    return draft


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        ([], ""),
        ([" Hello."], "Hello."),
        ([" And so,", " my fellow", " Americans."], "And so, my fellow Americans."),
        ([" Two  spaces", "\tand a tab \n", " here. "], "Two spaces and a tab here."),
        (["Without.", "Any spaces."], "Without. Any spaces."),
        ([" 'Twas", " brillig—", " and…"], "'Twas brillig— and…"),
        (["今日は", "いい天気ですね。"], "今日はいい天気ですね。"),
        (["本当。\u3000はい。", "行こう"], "本当。\u3000はい。行こう"),
        (["今天天气", "很好。"], "今天天气很好。"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        ([" 안녕하세요.", " 반갑습니다."], "안녕하세요. 반갑습니다."),
        (["Python", "は楽しい"], "Pythonは楽しい"),
        ([" مرحبا", " بالعالم"], "مرحبا بالعالم"),
        ([" Before", " ", "", " after"], "Before after"),
        ([" no\u00a0break"], "no break"),
    ],
)
async def test_segments_join_as_their_language_is_written(texts: list[str], whole: str):
    assert (await written(*texts)).text == whole


async def test_each_segment_is_cleaned_and_nothing_else_in_it_changes():
    draft = await written("  Hello   there. ", " Bye.")
    assert draft.segments == [segment(0, "Hello there."), segment(1, "Bye.")]


async def test_segments_without_words_are_left_out_and_the_rest_counts_on():
    draft = await written(" One.", " \n", " Two.")
    assert [(s.id, s.text, s.start) for s in draft.segments] == [(0, "One.", 0), (1, "Two.", 2)]


async def test_tidying_twice_changes_nothing_more():
    draft = await written(" One", " two.", "三", "四")
    once = draft.text, list(draft.segments)
    await tidy.run(draft, tidy.options())
    assert (draft.text, draft.segments) == once
