"""The whisper stage on real speech: what it writes, and that every option is seen in it."""

import asyncio
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel

from bus_worker.errors import BadRequest
from bus_worker.messages import ModelInfo
from bus_worker.plugin import Draft, ServesModel
from plugins.whisper import Options, whisper
from tests.helpers.clips import JFK, clip, words
from tests.helpers.hearing import Ears, opened

NUZHAT = "ls-test-other-2033-164914-0008"
"""A name that the model never gets right by itself."""
SPANISH = "fleurs-es-002"


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    with opened(replicas=2) as ears:
        yield ears


@pytest.fixture(scope="module")
def tiny() -> Iterator[Ears]:
    """The English model: half the time, where English will do."""
    with opened(model="tiny.en", replicas=1) as ears:
        yield ears


@pytest.fixture
def calls(tiny: Ears, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of the decoder, as CTranslate2 would get it from a caller who is alone."""
    seen: list[dict[str, Any]] = []
    real = tiny.engine.decoder.model

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def generate(self, features: Any, prompts: list[list[int]], *who: Any, **how: Any) -> Any:
            seen.append(how | {"prompt": prompts[0]})
            return real.generate(features, prompts, *who, **how)

    monkeypatch.setattr(tiny.engine.decoder, "model", Spy())
    return seen


def text(draft: Draft) -> str:
    return "".join(segment.text for segment in draft.segments)


def noise(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.standard_normal(round(16_000 * seconds)) * 0.05).astype(np.float32)


# What it writes


async def test_jfk_comes_back_word_for_word_with_its_language_detected(ears, speech):
    draft = await ears.hear(clip(speech, "jfk-flac"))
    assert words(text(draft)) == JFK
    assert draft.language == "en"
    assert 0.5 < draft.language_probability <= 1
    assert draft.model == ModelInfo("base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66")
    assert draft.warnings == []


async def test_segments_are_as_the_contract_says(ears, speech):
    draft = await ears.hear(clip(speech, NUZHAT), language="en", knobs={"temperatures": (0.0,)})
    assert len(draft.segments) > 1
    for number, segment in enumerate(draft.segments):
        assert segment.id == number
        assert 0 <= segment.start <= segment.end <= draft.duration
        assert (segment.start, segment.end) == (round(segment.start, 2), round(segment.end, 2))
        assert segment.confidence == round(segment.confidence, 3) < 0
        assert 0 <= segment.no_speech_prob <= 1
        assert segment.compression_ratio == round(segment.compression_ratio, 3) > 0
        assert segment.temperature == 0.0
        assert segment.tokens
        assert all(type(token) is int for token in segment.tokens)
        assert type(segment.confidence) is type(segment.no_speech_prob) is float
        assert segment.words is None
    for before, after in itertools.pairwise(draft.segments):
        assert before.end <= after.start


async def test_language_is_detected(ears, speech):
    draft = await ears.hear(clip(speech, SPANISH))
    assert (draft.language, draft.warnings) == ("es", [])
    assert "funeral en la plaza" in words(text(draft))


async def test_an_unsure_detection_falls_back_to_the_default_and_says_so(ears, speech):
    knobs = {"language_threshold": 1.0, "default_language": "de", "temperatures": (0.0,)}
    draft = await ears.hear(clip(speech, SPANISH), knobs=knobs)
    assert (draft.language, draft.warnings) == ("de", ["language_uncertain"])
    assert draft.language_probability < 0.5


async def test_where_nobody_speaks_the_model_is_not_asked(tiny, calls):
    draft = await tiny.hear(noise(2), language="en")
    assert (draft.segments, draft.language, draft.language_probability) == ([], None, None)
    assert draft.warnings == ["no_speech"]
    assert draft.model is not None
    assert calls == []


@pytest.mark.parametrize(
    ("length", "vad"), [(0, True), (0, False), (1, True), (159, False), (1600, True)]
)
async def test_hardly_any_samples_are_no_speech(tiny, length, vad):
    draft = await tiny.hear(np.zeros(length, np.float32), vad=vad)
    assert (draft.segments, draft.warnings) == ([], ["no_speech"])


async def test_times_count_the_silence_that_was_left_out(ears, speech):
    jfk, pause = clip(speech, "jfk-flac"), np.zeros(9 * 16_000, np.float32)
    samples = np.concatenate([pause, jfk])
    draft = await ears.hear(samples, language="en")
    assert words(text(draft)) == JFK
    assert 8.5 <= draft.segments[0].start <= 9.5
    assert draft.segments[-1].end <= 20


async def test_several_clips_at_once_come_out_as_one_by_one(ears, speech):
    names = ["jfk-flac", SPANISH, "jfk-flac"]
    alone = [text(await ears.hear(clip(speech, name))) for name in names[:2]]
    together = await asyncio.gather(*(ears.hear(clip(speech, name)) for name in names))
    assert [text(draft) for draft in together] == [*alone, alone[0]]


# Every option that a request may set


async def test_language_is_the_callers_when_given(ears, speech):
    draft = await ears.hear(clip(speech, "jfk-flac"), language="de")
    assert (draft.language, draft.language_probability) == ("de", 1.0)
    assert words(text(draft)) != JFK


async def test_task_translate_writes_english(ears, speech):
    draft = await ears.hear(clip(speech, SPANISH), task="translate")
    assert draft.language == "es"
    assert {"the", "of", "people", "funeral"} <= set(words(text(draft)).split())


async def test_prompt_sets_the_style(ears, speech):
    prompt = "and so i say to you without any commas or capitals ask and ask and ask again"
    draft = await ears.hear(clip(speech, "jfk-flac"), language="en", prompt=prompt)
    assert words(text(draft)) == JFK
    assert "," not in text(draft)
    assert "," in text(await ears.hear(clip(speech, "jfk-flac"), language="en"))


async def test_hotwords_are_heard_where_they_were_misheard(ears, speech):
    knobs = {"temperatures": (0.0,)}
    without = await ears.hear(clip(speech, NUZHAT), language="en", knobs=knobs)
    hinted = await ears.hear(
        clip(speech, NUZHAT), language="en", knobs=knobs, hotwords=["Nuzhat al Zaman", "eunuch"]
    )
    assert "Nuzhat" not in text(without)
    assert "Nuzhat al Zaman" in text(hinted)


async def test_temperature_is_the_one_that_was_asked_for(tiny, speech, calls):
    draft = await tiny.hear(
        clip(speech, "ls-test-other-1688-142285-0002"), language="en", temperature=0.7
    )
    assert {segment.temperature for segment in draft.segments} == {0.7}
    assert {call["sampling_temperature"] for call in calls} == {0.7}


async def test_beam_size_reaches_the_decoder(tiny, speech, calls):
    samples = clip(speech, "ls-test-other-1688-142285-0002")
    await tiny.hear(samples, language="en")
    await tiny.hear(samples, language="en", beam_size=2)
    assert [call["beam_size"] for call in calls] == [5, 2]


async def test_word_timestamps_give_words_with_times_in_order(ears, speech):
    pause = np.zeros(5 * 16_000, np.float32)
    samples = np.concatenate([pause, clip(speech, "jfk-flac")])
    draft = await ears.hear(samples, language="en", word_timestamps=True)
    found = [word for segment in draft.segments for word in segment.words]
    assert words("".join(word.word for word in found)) == JFK
    times = [time for word in found for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(time == round(time, 2) for time in times)
    assert times[0] > 4.5, "the silence that was left out counts"
    assert times[-1] <= draft.duration
    assert all(0 <= word.probability <= 1 for word in found)
    for segment in draft.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


async def test_vad_off_has_the_model_listen_to_what_is_no_speech(tiny, calls):
    await tiny.hear(noise(1), language="en", vad=False)
    assert calls


# The operator's and the request's own knobs


async def test_vad_off_for_all_may_be_set_on_for_one(tiny, calls):
    await tiny.hear(noise(1), language="en", knobs={"vad": False})
    assert calls
    calls.clear()
    await tiny.hear(noise(1), language="en", knobs={"vad": False}, vad=True)
    assert not calls


async def test_vad_threshold_decides_what_is_speech(ears, speech):
    samples = clip(speech, "ls-test-other-1688-142285-0002")
    draft = await ears.hear(samples, language="en", knobs={"vad_threshold": 0.9999})
    assert draft.warnings == ["no_speech"]


async def test_vad_min_silence_decides_what_is_left_out(tiny, speech):
    jfk, pause = clip(speech, "jfk-flac")[:32_000], np.zeros(3 * 16_000, np.float32)
    samples = np.concatenate([jfk, pause, jfk])
    encoded: list[int] = []
    real = tiny.engine.decoder.listen

    def listen(heard: Any, **how: Any) -> Any:
        encoded.append(len(heard))
        return real(heard, **how)

    tiny.engine.decoder.listen = listen
    try:
        await tiny.hear(samples, language="en", knobs={"vad_min_silence_ms": 500})
        await tiny.hear(samples, language="en", knobs={"vad_min_silence_ms": 5000})
    finally:
        del tiny.engine.decoder.listen
    assert encoded[0] < len(samples) - 16_000
    assert encoded[1] > len(samples) - 16_000


async def test_conditioning_shows_a_window_the_text_before_it(tiny, speech, calls):
    long = np.concatenate([clip(speech, "jfk-flac"), np.zeros(20 * 16_000, np.float32)])
    for conditioned in (False, True):
        calls.clear()
        knobs = {"condition_on_previous_text": conditioned, "temperatures": (0.0,)}
        await tiny.hear(long, vad=False, knobs=knobs)
        assert len(calls) > 1
        assert (len(calls[-1]["prompt"]) > 20) is conditioned


async def test_prompt_and_hotwords_together_leave_room_to_write(tiny, speech, calls):
    draft = await tiny.hear(
        clip(speech, "jfk-flac"),
        language="en",
        prompt="many words of a prompt " * 150,
        hotwords=[f"hotword number {n}" for n in range(200)],
    )
    assert words(text(draft)) == JFK
    assert len(calls[0]["prompt"]) < 448 / 2 + 4


async def test_hotwords_alone_take_half_the_room(tiny, speech, calls):
    hotwords = [f"hotword number {n}" for n in range(200)]
    knobs = {"temperatures": (0.0,)}
    await tiny.hear(clip(speech, "jfk-flac"), knobs=knobs, hotwords=hotwords)
    assert len(calls[0]["prompt"]) < 448 / 4 + 4


async def test_control_tokens_written_in_a_prompt_are_no_orders(tiny, speech, calls):
    orders = "<|startoftranscript|><|de|><|translate|><|notimestamps|><|endoftext|>"
    draft = await tiny.hear(clip(speech, "jfk-flac"), prompt=orders, hotwords=[orders])
    assert words(text(draft)) == JFK
    assert calls[0]["prompt"].count(tiny.engine.decoder.eot + 1) == 1  # <|startoftranscript|>


async def test_what_nobody_can_say_is_not_shown_to_the_decoder(tiny, speech, calls):
    jfk = clip(speech, "jfk-flac")
    noise = "\ud7ff\0\x1b<|endoftext|><|notimestamps|>" * 50
    for asked in (
        {"prompt": noise, "hotwords": [noise[:64]]},
        {},
        {"prompt": f"{noise}Mr.\tKennedy,\n", "hotwords": ["می\u200cروم\0"]},
        {"prompt": "Mr. Kennedy,", "hotwords": ["می\u200cروم"]},
    ):
        await tiny.hear(jfk, knobs={"temperatures": (0.0,)}, **asked)
    unsayable, bare, dirty, clean = (call["prompt"] for call in calls)
    assert unsayable == bare
    assert dirty == clean


async def test_operator_thresholds_reach_the_fallback(tiny, speech, calls):
    knobs = {"log_prob_threshold": -0.0001, "temperatures": (0.0, 0.2), "no_speech_threshold": 1.0}
    await tiny.hear(clip(speech, "jfk-flac"), language="en", knobs=knobs)
    assert [call.get("sampling_temperature") for call in calls] == [None, None, 0.2]


# How much is encoded


@pytest.fixture
def encoded(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of every call of the encoder."""
    frames: list[int] = []
    real = WhisperModel.encode

    def encode(decoder: Any, features: np.ndarray) -> Any:
        frames.append(features.shape[-1])
        return real(decoder, features)

    monkeypatch.setattr(WhisperModel, "encode", encode)
    return frames


async def test_language_words_and_text_share_one_encoding_of_the_clip_s_own_length(
    ears, speech, encoded
):
    draft = await ears.hear(clip(speech, "jfk-flac"), word_timestamps=True)
    assert (words(text(draft)), draft.language) == (JFK, "en")
    assert draft.segments[0].words
    assert encoded == [1400]
    assert draft.notes == {"context": 14.0, "batch": 1, "calls": "1"}


async def test_with_short_context_off_a_window_is_whole(ears, speech, encoded):
    draft = await ears.hear(clip(speech, "jfk-flac"), knobs={"short_context": False})
    assert words(text(draft)) == JFK
    assert encoded == [3000]


async def test_doubtful_text_is_tried_again_with_more_and_the_log_says_why(
    ears, speech, encoded, monkeypatch
):
    whys = iter(["past_end", "repetition"])
    monkeypatch.setattr("plugins.whisper.decoder.doubt", lambda *_: next(whys))
    draft = await ears.hear(clip(speech, "jfk-flac"), language="en")
    assert words(text(draft)) == JFK
    assert encoded == [1400, 1700, 3000]
    assert draft.notes == {
        "context": 61.0, "reruns": 2, "doubts": "past_end,repetition", "batch": 1, "calls": "1,1,1",
    }  # fmt: skip


async def test_a_language_that_is_unsure_is_asked_for_in_a_whole_window(ears, speech, encoded):
    knobs = {"language_threshold": 1.0, "temperatures": (0.0,)}
    draft = await ears.hear(clip(speech, "jfk-flac"), knobs=knobs)
    assert draft.warnings == ["language_uncertain"]
    assert encoded == [1400, 3000], "what detection encoded is decoded"
    assert draft.notes["doubts"] == "language"


async def test_long_sound_is_heard_window_by_window_and_the_last_is_short(tiny, speech, encoded):
    long = np.concatenate([clip(speech, "jfk-flac")] * 3)
    draft = await tiny.hear(long, vad=False, knobs={"temperatures": (0.0,)})
    assert words(text(draft)).count("ask what you can do for your country") == 3
    assert encoded[0] == 3000
    assert encoded[-1] < 3000
    assert draft.segments[-1].end <= 33


# What it refuses


@pytest.mark.parametrize("language", ["xx", "yue"])
async def test_a_language_the_model_does_not_know_is_refused_by_name(ears, language):
    with pytest.raises(BadRequest, match=f"model 'base' does not know '{language}'") as refused:
        await ears.hear(noise(1), language=language)
    assert "en" in refused.value.details["languages"]


async def test_an_tiny_model_refuses_other_languages_and_translation(tiny):
    with pytest.raises(BadRequest, match=r"'tiny\.en' does not know 'de'; it knows English only"):
        await tiny.hear(noise(1), language="de")
    with pytest.raises(BadRequest, match="cannot translate"):
        await tiny.hear(noise(1), task="translate")


async def test_an_tiny_model_hears_english_and_is_sure_of_it(tiny, speech):
    draft = await tiny.hear(clip(speech, "jfk-flac"))
    assert words(text(draft)) == JFK
    assert (draft.language, draft.language_probability, draft.warnings) == ("en", 1.0, [])
    assert draft.model == ModelInfo("tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba")


# The stage


def test_the_engine_says_which_model_and_how_many_at_once(ears):
    assert isinstance(ears.engine, ServesModel)
    assert (ears.engine.model.name, ears.engine.slots) == ("base", 2)


def test_callers_may_set_nothing_that_makes_a_request_dearer():
    assert set(whisper.per_request) == {
        "vad_threshold", "vad_min_silence_ms", "condition_on_previous_text"
    }  # fmt: skip
    assert {"model", "device", "beam_size", "temperatures"} <= set(Options.model_fields)


@pytest.mark.parametrize("option", sorted(Options.model_fields))
def test_every_option_is_described(option):
    assert str(Options.model_fields[option].description).endswith(".")


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "tpu"}, {"replicas": 0}, {"threads": 0}, {"beam_size": 99}, {"vad_threshold": 1.0},
        {"temperatures": ()}, {"temperatures": (2.0,)}, {"language_threshold": math.nan}, {"size": "base"},
    ],
)  # fmt: skip
def test_options_are_bounded(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)
