"""Quiet clips are raised, others left as they were; silence stays silent."""

import numpy as np
import pytest
from pydantic import ValidationError

from bus_worker.plugin import Draft
from plugins.normalize import Options, normalize
from plugins.silence import silence
from tests.helpers.tones import Samples, noise, tone


def normalized(samples: Samples, **options: float) -> Draft:
    draft = Draft(samples=samples)
    normalize.run(draft, Options(**options))
    return draft


@pytest.mark.parametrize("level", [1e-39, 1e-5, 0.09, 1.0, 50.0, 3e38])
def test_the_loudest_sample_reaches_the_peak(level: float):
    draft = normalized(tone(1, level=level))
    assert draft.samples is not None
    assert np.abs(draft.samples).max() == pytest.approx(1, abs=1e-6)
    assert draft.samples.dtype == np.float32
    assert draft.samples.flags.c_contiguous


@pytest.mark.parametrize("level", [0.1001, 0.5, 0.999])
def test_a_clip_that_is_loud_enough_is_left_as_it_is(level: float):
    samples = tone(1, level=level)
    draft = normalized(samples)
    assert draft.samples is samples
    assert draft.extras["gain"] == 1
    assert "gain" not in draft.notes


def test_every_clip_may_be_brought_to_one_peak_also_per_request():
    for level in (0.01, 0.5, 1.0):
        draft = normalized(tone(1, level=level), peak=0.25, quiet=1)
        assert np.abs(draft.samples).max() == pytest.approx(0.25)
    assert normalize.per_request == ("peak", "quiet")


def test_at_the_lowest_peak_speech_is_not_taken_for_silence():
    draft = normalized(noise(1), peak=0.01, quiet=1)
    silence.run(draft, silence.options())
    assert not draft.finished


def test_the_shape_of_the_wave_is_kept():
    samples = noise(1, level=0.01)
    draft = normalized(samples)
    np.testing.assert_allclose(draft.samples * np.abs(samples).max(), samples, atol=1e-7)


def test_later_stages_can_tell_how_loud_it_was():
    draft = normalized(tone(1, level=0.0625))
    assert draft.extras["gain"] == pytest.approx(16)
    normalize.run(draft, Options(peak=0.5, quiet=1))
    assert draft.extras["gain"] == pytest.approx(8)


@pytest.mark.parametrize(
    "samples", [np.zeros(1600), np.zeros(0), np.array([0.1, np.nan]), np.array([np.inf])]
)
def test_what_has_no_peak_is_left_alone(samples: Samples):
    draft = normalized(samples.astype(np.float32))
    np.testing.assert_array_equal(draft.samples, samples.astype(np.float32))
    assert draft.extras["gain"] == 1


def test_the_callers_samples_are_not_changed_in_place():
    samples = tone(1, level=0.1)
    normalized(samples)
    assert samples.max() == pytest.approx(0.1)


@pytest.mark.parametrize("peak", [0, -1, 1e-300, 0.009, 1.5])
def test_a_peak_beyond_full_scale_or_too_low_to_hear_is_refused(peak: float):
    with pytest.raises(ValidationError):
        Options(peak=peak)
