"""Subtitles that players take, whatever the model wrote."""

import json

import pytest

from bus_worker.formats import FORMATS, RunningText, joined, joint, to_json, to_srt, to_text, to_vtt
from bus_worker.messages import ModelInfo, Segment, Timings, Transcript
from bus_worker.testing import segment


def transcript(*segments: Segment, text: str | None = None) -> Transcript:
    return Transcript(
        request_id="r1",
        text=" ".join(s.text.strip() for s in segments) if text is None else text,
        language="en",
        language_probability=0.99,
        duration=3.0,
        segments=list(segments),
        model=ModelInfo("base", "abc"),
        timings=Timings(),
        real_time_factor=0.1,
        worker_id="w1",
    )


def test_text_is_one_line():
    assert (
        to_text(transcript(text="  Ask not\nwhat your  country ")) == "Ask not what your country\n"
    )


def test_json_is_the_reply_on_one_line():
    heard = transcript(segment("Größe 大き", 0.0, 1.5))
    line = to_json(heard, file="a.wav")
    assert line.count("\n") == 1
    assert "Größe 大き" in line
    assert json.loads(line) == {"file": "a.wav", **heard.to_map()}
    assert next(iter(json.loads(line))) == "file"


def test_srt_numbers_its_cues_and_writes_a_comma():
    heard = transcript(segment(" One.", 0.0, 1.5), segment(" Two.", 1.5, 3.25))
    assert to_srt(heard) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n00:00:01,500 --> 00:00:03,250\nTwo.\n"
    )


def test_vtt_has_a_header_and_writes_a_point():
    heard = transcript(segment(" One.", 0.0, 1.5), segment(" Two.", 1.5, 3.25))
    assert to_vtt(heard) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne.\n\n00:00:01.500 --> 00:00:03.250\nTwo.\n"
    )


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0, "00:00:00,000"),
        (0.29, "00:00:00,290"),  # 0.29 * 1000 is 290.00000000000006 or 289.99…: rounded
        (59.999, "00:00:59,999"),
        (59.9996, "00:01:00,000"),
        (3599.99, "00:59:59,990"),
        (3600.0, "01:00:00,000"),
        (360_000.5, "100:00:00,500"),
    ],
)
def test_clocks_carry_over_and_do_not_drift(seconds: float, clock: str):
    assert to_srt(transcript(segment("x", seconds, seconds + 1))).splitlines()[1].startswith(clock)


@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_no_blank_line_ends_a_cue_early(write):
    body = write(transcript(segment(" one\n\n \n two\r\n\u2028three ", 0, 1)))
    assert "one\ntwo\nthree\n" in body
    assert body.endswith("three\n")


def test_an_arrow_in_the_text_is_no_cue_of_srt():
    body = to_srt(transcript(segment("00:00 --> 00:01 ----> end", 0, 1)))
    assert body.count("-->") == 1
    assert body.splitlines()[2] == "00:00 -> 00:01 -> end"


def test_vtt_escapes_what_would_be_markup():
    body = to_vtt(transcript(segment("R&D <i>x</i> --> y &amp;", 0, 1)))
    assert body.count("-->") == 1
    assert body.splitlines()[3] == "R&amp;D &lt;i&gt;x&lt;/i&gt; --&gt; y &amp;amp;"


@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_a_cue_ends_after_its_start(write):
    body = write(transcript(segment("x", 2.0, 2.0), segment("y", -0.01, -0.5)))
    clocks = [line.split(" --> ") for line in body.splitlines() if " --> " in line]
    assert len(clocks) == 2
    assert all(start < end for start, end in clocks)
    assert clocks[1][0][:8] == "00:00:00"


@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_segments_without_text_leave_no_cue_and_no_gap_in_the_numbers(write):
    body = write(transcript(segment("  ", 0, 1), segment("x", 1, 2)))
    assert body.count("-->") == 1
    if write is to_srt:
        assert body.startswith("1\n")


def test_silence_is_valid_in_every_format():
    silent = transcript(text="")
    assert to_text(silent) == "\n"
    assert to_srt(silent) == ""
    assert to_vtt(silent) == "WEBVTT\n"
    assert json.loads(to_json(silent))["segments"] == []


@pytest.mark.parametrize(
    ("texts", "adds"),
    [
        ([" And so,", " my fellow"], ["And so,", " my fellow"]),
        (["Cleaned", "before."], ["Cleaned", " before."]),
        ([" One ", " two. ", ""], ["One", " two.", ""]),
        ([" ", "\n", " late"], ["", "", "late"]),
        (["本当。\u3000", "はい", " "], ["本当。", "\u3000はい", ""]),
        (["one", " \t ", "two"], ["one", "", " two"]),
    ],
)
def test_what_each_segment_adds_makes_the_one_text(texts: list[str], adds: list[str]):
    running = RunningText()
    assert [running.add(text) for text in texts] == adds
    assert "".join(adds) == joined(texts)


@pytest.mark.parametrize(
    ("before", "after", "between"),
    [
        ("a", "b", " "),
        ("a ", "b", ""),
        ("a", " b", ""),
        ("日", "本", ""),
        ("", "b", ""),
        ("a", "", ""),
    ],
)
def test_a_space_goes_where_the_language_has_one_and_none_is_there(
    before: str, after: str, between: str
):
    assert joint(before, after) == between


def test_the_formats_of_the_command_line_are_these():
    assert list(FORMATS) == ["text", "json", "srt", "vtt"]
