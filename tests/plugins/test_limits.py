"""Clips outside the limits are refused with both numbers."""

import pytest
from pydantic import ValidationError

from bus_worker.errors import AudioTooLong, AudioTooShort
from bus_worker.plugin import Draft
from plugins.limits import Options, limits
from tests.helpers.tones import tone


async def limit(seconds: float, **options: object) -> None:
    await limits.run(Draft(samples=tone(seconds)), Options(**options))


@pytest.mark.parametrize("seconds", [0.1, 5, 30])
async def test_what_is_within_the_limits_passes_unchanged(seconds: float):
    draft = Draft(samples=tone(seconds))
    before = draft.samples
    await limits.run(draft, Options())
    assert draft.samples is before


async def test_a_blink_is_too_short():
    with pytest.raises(AudioTooShort, match=r"0\.05 s long; at least 0\.1 s") as caught:
        await limit(0.05)
    assert caught.value.details == {"duration": 0.05, "minimum": 0.1}


async def test_no_samples_at_all_are_too_short():
    with pytest.raises(AudioTooShort, match="0 s long"):
        await limit(0)


async def test_a_lecture_is_too_long():
    with pytest.raises(
        AudioTooLong, match=r"the audio is 30\.5 s long; the limit is 30 s"
    ) as caught:
        await limit(30.5)
    assert caught.value.details == {"duration": 30.5, "maximum": 30.0}


@pytest.mark.parametrize("lifted", [None, "inf"])
async def test_the_limit_may_be_lifted(lifted: str | None):
    await limit(31, max_duration=lifted)


@pytest.mark.parametrize("options", [{"max_duration": 0}, {"min_duration": -1}, {"longest": 3}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, float]):
    with pytest.raises(ValidationError):
        Options(**options)


def test_the_limits_are_the_operators():
    assert limits.per_request == ()
