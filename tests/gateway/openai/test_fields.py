"""Every field of the API is honoured, refused by name, or answered with a warning."""

from typing import Any

import pytest

from bus_worker.errors import BadRequest
from gateway.openai.fields import read_transcription, read_translation


def form(**fields: str | tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Fields as an upload brings them."""
    given = {"model": "whisper-1", **fields}
    return {n: (value,) if isinstance(value, str) else value for n, value in given.items()}


def wrong(read: Any, fields: dict[str, tuple[str, ...]]) -> tuple[str, str]:
    """The field that a refusal names, and why."""
    with pytest.raises(BadRequest) as caught:
        read(fields)
    assert caught.value.message
    return caught.value.details["field"], caught.value.details["reason"]


def test_a_model_alone_is_enough():
    asked = read_transcription(form())
    assert (asked.model, asked.response_format, asked.options) == ("whisper-1", "json", {})
    assert (asked.segments, asked.stream, asked.warnings, asked.stages) == (True, False, (), {})


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"language": "de"}, {"language": "de"}),
        ({"language": " EN "}, {"language": "en"}),
        ({"language": "jv"}, {"language": "jw"}),
        ({"languages": ("de",)}, {"language": "de"}),
        ({"language": "de", "languages": ("de", "DE")}, {"language": "de"}),
        ({"prompt": "Fellow Americans"}, {"prompt": "Fellow Americans"}),
        ({"keywords": ("NATS", "Whisper")}, {"hotwords": ["NATS", "Whisper"]}),
        ({"temperature": "0.2"}, {"temperature": 0.2}),
        ({"temperature": "0"}, {}),
        ({"temperature": "0.0"}, {}),
        ({"chunking_strategy": "auto"}, {"vad": True}),
        (
            {"response_format": "verbose_json", "timestamp_granularities": ("word",)},
            {"word_timestamps": True},
        ),
        ({"response_format": "verbose_json", "timestamp_granularities": ("segment",)}, {}),
        ({"language": "", "prompt": "", "temperature": "", "include": "", "stream": ""}, {}),
    ],
)
def test_what_is_asked_goes_to_the_worker_in_its_own_words(
    fields: dict[str, Any], options: dict[str, Any]
):
    asked = read_transcription(form(**fields))
    assert (asked.options, asked.warnings) == (options, ())


@pytest.mark.parametrize(
    ("granularities", "listed"),
    [
        ((), {"segments"}),
        (("segment",), {"segments"}),
        (("word",), {"words"}),
        (("word", "segment"), {"segments", "words"}),
    ],
)
def test_granularities_choose_what_is_listed(granularities: tuple[str, ...], listed: set[str]):
    fields = form(response_format="verbose_json", timestamp_granularities=granularities)
    asked = read_transcription(fields)
    assert asked.segments == ("segments" in listed)
    assert asked.options.get("word_timestamps", False) == ("words" in listed)


@pytest.mark.parametrize(
    "fields",
    [
        {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4",
         "chunking_strategy[silence_duration_ms]": "300"},
        {"chunking_strategy": '{"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300}'},
    ],
    ids=["field by field", "as JSON"],
)  # fmt: skip
def test_the_chunking_strategy_may_be_an_object(fields: dict[str, str]):
    asked = read_transcription(form(**fields))
    assert asked.options == {"vad": True}
    assert asked.stages == {"whisper": {"vad_threshold": 0.4, "vad_min_silence_ms": 300}}
    assert asked.warnings == ()


@pytest.mark.parametrize("yes", ["true", "True", "TRUE"])
def test_a_stream_is_asked_for_in_any_spelling(yes: str):
    assert read_transcription(form(stream=yes)).stream
    assert not read_transcription(form(stream="false")).stream


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": ("a", "b")}, "model", "invalid_value"),
        ({"colour": "blue"}, "colour", "unknown_parameter"),
        ({"colour": ""}, "colour", "unknown_parameter"),
        ({"include": ("logprobs",)}, "include", "unsupported_parameter"),
        ({"known_speaker_names": ("Ada",)}, "known_speaker_names", "unsupported_parameter"),
        ({"known_speaker_references": ("x",)}, "known_speaker_references", "unsupported_parameter"),
        ({"response_format": "diarized_json"}, "response_format", "unsupported_value"),
        ({"response_format": "xml"}, "response_format", "unsupported_value"),
        ({"response_format": "srt", "stream": "true"}, "response_format", "unsupported_value"),
        ({"temperature": "warm"}, "temperature", "invalid_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"stream": "perhaps"}, "stream", "invalid_value"),
        ({"stream": "1"}, "stream", "invalid_value"),
        ({"language": "english"}, "language", "invalid_language_format"),
        ({"language": "en-US"}, "language", "invalid_language_format"),
        ({"languages": ("en", "xx")}, "languages", "invalid_language_format"),
        ({"language": "en", "languages": ("de",)}, "languages", "invalid_value"),
        ({"prompt": "x" * 4001}, "prompt", "invalid_value"),
        ({"keywords": ("x" * 101,)}, "keywords", "invalid_value"),
        ({"timestamp_granularities": ("char",)}, "timestamp_granularities", "invalid_value"),
        ({"chunking_strategy": "manual"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "[1]"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "[" * 9999}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": '{"type": "magic"}'}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy[threshold]": "0.5"}, "chunking_strategy", "invalid_value"),
        ({"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"},
         "chunking_strategy", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str, reason: str):
    assert wrong(read_transcription, form(**fields)) == (param, reason)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"timestamp_granularities": ("segment",)}, "timestamp_granularities"),
        ({"languages": ("de", "en")}, "languages"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[prefix_padding_ms]": "300"},
         "chunking_strategy.prefix_padding_ms"),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told(fields: dict[str, Any], name: str):
    (warning,) = read_transcription(form(**fields)).warnings
    assert warning.startswith(f"{name}: ")
    assert warning.isascii()


def test_refusals_never_echo_long_values():
    with pytest.raises(BadRequest) as caught:
        read_transcription(form(language="x" * 5000))
    assert len(caught.value.message) < 200


def test_a_translation_is_asked_for_as_a_task():
    asked = read_translation(form(prompt="Hi", temperature="0.5", response_format="vtt"))
    assert asked.options == {"task": "translate", "prompt": "Hi", "temperature": 0.5}
    assert (asked.response_format, asked.stream) == ("vtt", False)


@pytest.mark.parametrize(
    "name", ["language", "stream", "timestamp_granularities", "keywords", "chunking_strategy"]
)
def test_a_translation_has_no_other_fields(name: str):
    values = {"language": "en", "stream": "true", "chunking_strategy": "auto"}
    fields = form(**{name: values.get(name, "word")})
    assert wrong(read_translation, fields) == (name, "unknown_parameter")
