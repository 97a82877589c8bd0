"""The first stage: the caller's bytes become samples, within the operator's bounds."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from pydantic import ValidationError

from bus_worker import audio
from bus_worker.errors import AudioTooLong, BadAudio, Cancelled, DeadlineExceeded
from bus_worker.plugin import Draft
from plugins.decode import Options, decode
from tests.helpers.tones import encode, tone, wav_bytes

COLD = """
import sys
import plugins.decode
print(*(name for name in ("av", "soundfile", "soxr", "librosa") if name in sys.modules))
"""


def decoded(draft: Draft, **options: object) -> Draft:
    decode.run(draft, Options(**options), None)
    return draft


def test_it_gives_samples_and_their_duration():
    draft = decoded(Draft(audio=encode(tone(1.25, rate=48000), 48000, "flac")))
    assert draft.samples is not None
    assert draft.samples.dtype == np.float32
    assert draft.samples.shape == (20000,)
    assert draft.duration == 1.25


def test_the_content_decides_and_not_the_name():
    draft = decoded(Draft(audio=encode(tone(1), 16000, "aac"), format="wav"))
    assert draft.duration == pytest.approx(1, abs=0.15)
    with pytest.raises(BadAudio, match="text"):
        decoded(Draft(audio=b"not at all", format="audio/wav"))


def test_only_allowed_formats_pass():
    draft = Draft(audio=encode(tone(1), 16000, "mp3"))
    with pytest.raises(BadAudio, match=r"mp3 is not allowed here; send one of wav, flac$"):
        decoded(draft, formats=("wav", "flac"))


def test_an_unknown_format_in_the_options_is_refused():
    with pytest.raises(ValidationError, match="formats"):
        Options(formats=("wav", "wma"))


def test_every_option_is_the_operators():
    assert decode.per_request == ()


def test_reading_stops_behind_the_limit_unless_it_is_lifted():
    draft = Draft(audio=wav_bytes(tone(3)))
    with pytest.raises(AudioTooLong, match="the limit is 2 s"):
        decoded(draft, max_duration=2)
    assert decoded(draft, max_duration=None).duration == 3
    assert decoded(draft, max_duration="inf").duration == 3


def test_reading_stops_when_time_is_up():
    with pytest.raises(BadAudio, match="could not be read within"):
        decoded(Draft(audio=wav_bytes(tone(1))), timeout=1e-9)


def test_reading_stops_for_a_caller_who_left():
    draft = Draft(audio=wav_bytes(tone(1)))
    draft.give_up()
    with pytest.raises(Cancelled):
        decoded(draft)
    with pytest.raises(DeadlineExceeded):
        decoded(Draft(audio=wav_bytes(tone(1)), deadline=time.monotonic() - 1))


async def test_it_warms_up_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    threads = []
    monkeypatch.setattr(audio, "warm_up", lambda: threads.append(threading.current_thread()))
    assert decode.open is not None
    async with decode.open(Options()) as opened:
        assert opened is None
    assert threads
    assert threads[0] is not threading.main_thread()


async def test_once_open_it_decodes_in_a_thread():
    assert decode.blocking
    assert decode.open is not None
    async with decode.open(Options()) as opened:
        draft = Draft(audio=wav_bytes(tone(1)))
        await asyncio.to_thread(decode.run, draft, Options(), opened)
    assert draft.duration == 1


def test_listing_it_imports_no_library_of_sound():
    done = subprocess.run(
        [sys.executable, "-c", COLD], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == ""
