"""A transcript in each of the API's formats."""

import json
from dataclasses import replace
from typing import Any

import pytest

from bus_worker.messages import ModelInfo, Segment, Timings, Transcript, Word
from bus_worker.testing import segment
from gateway.openai.fields import Asked, read_transcription, read_translation
from gateway.openai.replies import MEDIA_TYPES, written


def transcript(*segments: Segment, **fields: Any) -> Transcript:
    text = " ".join(s.text for s in segments)
    given = {"text": text, "language": "en", "duration": 2.3, **fields}
    return Transcript(
        request_id="r1", language_probability=0.99, segments=list(segments),
        model=ModelInfo("base"), timings=Timings(), real_time_factor=0.1, worker_id="w1", **given,
    )  # fmt: skip


HEARD = transcript(
    replace(
        segment("Ask not", 0.0, 1.1),
        seek=7,
        tokens=[1, 2],
        words=[Word(" Ask", 0.0, 0.4, 0.9), Word(" not", 0.4, 1.1, 0.8)],
    ),
    replace(segment("what.", 1.1, 2.3, 1), words=[Word(" what.", 1.2, 2.3, 0.7)]),
)


def asked(response_format: str, *granularities: str) -> Asked:
    return read_transcription(
        {
            "model": ("base",),
            "response_format": (response_format,),
            "timestamp_granularities": granularities,
        }
    )


def translation(response_format: str) -> Asked:
    return read_translation({"model": ("base",), "response_format": (response_format,)})


def test_json_has_the_text_the_language_and_the_seconds():
    assert json.loads(written(HEARD, asked("json"))) == {
        "text": "Ask not what.",
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": 3},
    }


def test_silence_is_an_empty_text_in_no_language():
    silent = transcript(language=None, duration=1.0)
    assert json.loads(written(silent, asked("json"))) == {
        "text": "", "languages": [], "usage": {"type": "duration", "seconds": 1},
    }  # fmt: skip
    verbose = json.loads(written(silent, asked("verbose_json", "word", "segment")))
    assert (verbose["language"], verbose["segments"], verbose["words"]) == ("unknown", [], [])


def test_verbose_json_has_segments_in_the_apis_own_words():
    verbose = json.loads(written(HEARD, asked("verbose_json")))
    first, second = verbose.pop("segments")
    assert verbose == {
        "task": "transcribe", "language": "english", "duration": 2.3, "text": "Ask not what.",
        "usage": {"type": "duration", "seconds": 3},
    }  # fmt: skip
    assert first == {
        "id": 0, "seek": 7, "start": 0.0, "end": 1.1, "text": " Ask not", "tokens": [1, 2],
        "temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01,
    }  # fmt: skip
    assert (second["id"], second["text"]) == (1, " what.")


def test_only_words_asked_means_words_and_no_segments():
    verbose = json.loads(written(HEARD, asked("verbose_json", "word")))
    assert "segments" not in verbose
    assert verbose["words"] == [
        {"word": "Ask", "start": 0.0, "end": 0.4},
        {"word": "not", "start": 0.4, "end": 1.1},
        {"word": "what.", "start": 1.2, "end": 2.3},
    ]


def test_both_asked_means_both_and_segments_alone_no_words():
    assert {"words", "segments"} <= json.loads(
        written(HEARD, asked("verbose_json", "word", "segment"))
    ).keys()
    assert "words" not in json.loads(written(HEARD, asked("verbose_json", "segment")))


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["One", "two"], [" One", " two"]),
        ([" One", " two"], [" One", " two"]),
        (["今日は", "いい"], ["今日は", "いい"]),
        (["Python", "は"], [" Python", "は"]),
    ],
)
def test_segments_keep_the_space_that_their_language_has(texts: list[str], shown: list[str]):
    heard = transcript(*(segment(text) for text in texts))
    verbose = json.loads(written(heard, asked("verbose_json")))
    assert [s["text"] for s in verbose["segments"]] == shown


@pytest.mark.parametrize(
    ("response_format", "body"),
    [
        ("text", "Ask not what.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,100\nAsk not\n\n2\n00:00:01,100 --> 00:00:02,300\nwhat.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.100\nAsk not\n\n00:00:01.100 --> 00:00:02.300\nwhat.\n"),
    ],
)  # fmt: skip
def test_plain_formats_are_plain(response_format: str, body: str):
    assert written(HEARD, asked(response_format)) == body
    assert written(HEARD, translation(response_format)) == body
    assert "json" not in MEDIA_TYPES[response_format]


def test_a_translation_in_json_is_its_text_alone():
    assert json.loads(written(HEARD, translation("json"))) == {"text": "Ask not what."}


def test_a_translation_is_english_whatever_was_spoken():
    verbose = json.loads(written(replace(HEARD, language="de"), translation("verbose_json")))
    assert (verbose["task"], verbose["language"], len(verbose["segments"])) == (
        "translate", "english", 2,
    )  # fmt: skip
    assert verbose.keys() == {"task", "language", "duration", "text", "segments"}
