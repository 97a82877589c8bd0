"""Silence is answered with nothing, however loud `normalize` made it."""

import numpy as np
import pytest

from bus_worker.messages import Segment
from bus_worker.plugin import Draft
from plugins.decode import Options as DecodeOptions
from plugins.decode import decode
from plugins.normalize import Options as NormalizeOptions
from plugins.normalize import normalize
from plugins.silence import Options, silence
from tests.helpers.clips import manifest
from tests.helpers.tones import FORMATS, Samples, encode, noise, tone


def in_order(data: bytes, **options: float) -> Draft:
    """The stages as `PIPELINE` orders them: silence comes behind normalize."""
    draft = Draft(audio=data)
    decode.run(draft, DecodeOptions(), None)
    normalize.run(draft, NormalizeOptions())
    silence.run(draft, Options(**options))
    return draft


def heard(samples: Samples, **options: float) -> Draft:
    draft = Draft(samples=samples, language="en", language_probability=0.9)
    silence.run(draft, Options(**options))
    return draft


@pytest.mark.parametrize("samples", [np.zeros(16000), np.zeros(0), noise(1, level=0.00028)])
def test_silence_ends_the_walk_with_nothing_said(samples: Samples):
    draft = Draft(samples=samples.astype(np.float32), language="en", language_probability=0.9)
    draft.text = "invented"
    draft.segments = [Segment(0, 0, 0, 1, "invented", [], 0, 0, 0, 0)]
    silence.run(draft, Options())
    assert draft.finished
    assert (draft.text, draft.segments) == ("", [])
    assert (draft.language, draft.language_probability) == (None, None)
    assert draft.warnings == ["silent_audio"]


@pytest.mark.parametrize("samples", [noise(1, level=0.00033), tone(1), np.full(100, 1e30)])
def test_what_can_be_heard_goes_on(samples: Samples):
    draft = heard(samples.astype(np.float32))
    assert not draft.finished
    assert draft.warnings == []
    assert draft.language == "en"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_noise_floor_is_silent_behind_normalize_in_every_format(format_: str):
    draft = in_order(encode(noise(2, rate=48000, level=0.0002), 48000, format_))
    assert draft.finished
    assert draft.warnings == ["silent_audio"]


def test_digital_silence_is_silent_behind_normalize():
    assert in_order(encode(np.zeros(16000, np.float32), 16000, "wav")).finished


def test_quiet_speech_is_not_silence():
    draft = in_order(encode(noise(2, level=0.002), 16000, "wav"))
    assert not draft.finished
    assert np.abs(draft.samples).max() == pytest.approx(1)


def test_a_real_recording_at_a_thousandth_of_the_usual_level_is_not_silence(speech):
    data = (speech / manifest(speech)["fleurs-en-004"]["file"]).read_bytes()
    draft = in_order(data)
    assert draft.notes["level"] < 0.0005
    assert not draft.finished


def test_a_second_of_speech_in_half_a_minute_is_not_silence():
    samples = np.zeros(16000 * 28, np.float32)
    samples[160000:176000] = noise(1, level=0.02)
    assert not in_order(encode(samples, 16000, "wav")).finished


def test_the_threshold_is_a_knob_of_the_operators():
    assert heard(noise(1, level=0.01), threshold=0.05).finished
    assert not heard(np.zeros(100, np.float32), threshold=0).finished
    assert silence.per_request == ()


def test_the_level_is_told_as_it_was_sent():
    draft = in_order(encode(noise(1, level=0.05), 16000, "wav"))
    assert draft.notes["level"] == pytest.approx(0.05, rel=0.02)
