"""Bytes to 16 kHz mono, whatever they came as: by tones made here and by real speech."""

import io
import json
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import soxr

from bus_worker import audio, plugin
from bus_worker.errors import AudioTooLong, BadAudio, Cancelled
from tests.helpers.tones import FORMATS, Samples, encode, noise, tone, wav_bytes

PADDING = 0.13
"""Seconds that encoders may add: whole frames (64 ms for AAC at 16 kHz) and their delay."""


def pitch(samples: Samples) -> float:
    """The loudest frequency, away from the edges, in Hz."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.abs(np.fft.rfft(middle)).argmax() * audio.SAMPLE_RATE / len(middle))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_comes_out_as_16_khz_mono(format_: str, channels: int):
    samples = tone(2, hz=440, rate=48000)
    if channels == 2:
        samples = np.stack([samples, samples], axis=1)
    heard = audio.decode(encode(samples, 48000, format_))
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert heard.flags.c_contiguous
    assert 2 <= len(heard) / audio.SAMPLE_RATE < 2 + PADDING
    assert pitch(heard) == pytest.approx(440, abs=1)
    assert np.abs(heard[8000:24000]).max() > 0.4


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000])
def test_every_rate_keeps_the_length_and_the_pitch(rate: int):
    heard = audio.decode(wav_bytes(tone(1.5, hz=300, rate=rate), rate))
    assert len(heard) == pytest.approx(1.5 * audio.SAMPLE_RATE, abs=2)
    assert pitch(heard) == pytest.approx(300, abs=1)


def test_resampling_block_by_block_is_what_resampling_the_whole_gives():
    samples = noise(1, rate=44100)
    heard = audio.decode(encode(samples, 44100, "wav-float"))
    # What librosa.resample calls for "soxr_hq", without its half a minute of compiling.
    whole = soxr.resample(samples, 44100, 16000, quality="HQ")
    assert len(heard) == pytest.approx(len(whole), abs=1)
    np.testing.assert_allclose(heard[:15999], whole[:15999], atol=1e-5)


def test_16_khz_passes_unchanged():
    samples = noise(1)
    np.testing.assert_array_equal(audio.decode(encode(samples, 16000, "wav-float")), samples)


@pytest.mark.parametrize("format_", ["wav", "wav-pcm24", "wav-float", "flac"])
def test_stereo_is_mixed_down(format_: str):
    left, right = tone(1, hz=300, level=0.8), tone(1, hz=300, level=0.2)
    heard = audio.decode(encode(np.stack([left, right], axis=1), 16000, format_))
    np.testing.assert_allclose(heard, tone(1, hz=300, level=0.5), atol=1e-3)


def test_eight_channels_do_not_end_the_process():
    samples = np.stack([tone(1, rate=48000)] * 8, axis=1)
    heard = audio.decode(encode(samples, 48000, "mp4"))
    assert pitch(heard) == pytest.approx(440, abs=2)


def test_blocks_join_to_what_decode_gives_and_none_is_long():
    data = encode(noise(3, rate=48000), 48000, "webm-live")
    blocks = list(audio.blocks(data))
    assert all(len(block) <= audio.SAMPLE_RATE / 2 for block in blocks)
    assert len(blocks) > 5
    np.testing.assert_array_equal(np.concatenate(blocks), audio.decode(data))


TAG = b"ID3\4\0\0\0\0\1\0" + bytes(128 + 300)


@pytest.mark.parametrize(
    ("format_", "front"),
    [*((name, b"") for name in FORMATS), ("mp3", TAG), ("aac", TAG), ("flac", TAG)],
)
def test_a_file_on_disk_sounds_as_its_bytes(format_: str, front: bytes, tmp_path: Path):
    data = front + encode(noise(3, rate=48000), 48000, format_)
    (tmp_path / "sound").write_bytes(data)
    with (tmp_path / "sound").open("rb") as file:
        for ours, theirs in zip(audio.blocks(file), audio.blocks(data), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_broken_file_on_disk_is_refused_as_its_bytes_are(format_: str, tmp_path: Path):
    data = encode(noise(3, rate=48000), 48000, format_)
    for part in (data[: len(data) // 3], data[:100], bytes(500) + data):
        (tmp_path / "sound").write_bytes(part)
        with (tmp_path / "sound").open("rb") as file:
            assert outcome(file) == outcome(part)


def outcome(data: bytes | BinaryIO) -> str:
    try:
        return f"{sum(map(len, audio.blocks(data)))} samples"
    except BadAudio as error:
        return error.message


def test_blocks_end_a_block_behind_the_limit():
    lengths = []
    with pytest.raises(AudioTooLong, match=r"at least 2\.\d+ s long; the limit is 2 s"):
        lengths.extend(len(block) for block in audio.blocks(wav_bytes(tone(60)), max_duration=2))
    assert sum(lengths) <= 2 * audio.SAMPLE_RATE


def test_blocks_are_read_without_seeking(monkeypatch: pytest.MonkeyPatch):
    """Seeking to where it is, as soundfile does by itself, changes what some clips sound like."""
    sought = []
    monkeypatch.setattr(soundfile.SoundFile, "seek", lambda *args: sought.append(args))
    assert len(audio.decode(encode(tone(2), 16000, "opus"))) == 2 * audio.SAMPLE_RATE
    assert sought == []


def test_a_stream_may_be_left_half_read():
    stream = audio.blocks(wav_bytes(tone(5)))
    assert len(next(stream))
    stream.close()


def test_a_consumer_may_take_its_time():
    stream = audio.blocks(encode(tone(2), 16000, "aac"), timeout=1)
    next(stream)
    time.sleep(1.1)
    assert sum(map(len, stream)) > audio.SAMPLE_RATE


def test_the_rate_may_change_midway():
    data = encode(tone(1), 16000, "aac") + encode(tone(1, rate=48000), 48000, "aac")
    heard = audio.decode(data)
    assert 2 <= len(heard) / audio.SAMPLE_RATE < 2 + 2 * PADDING
    half = len(heard) // 2
    assert pitch(heard[:half]) == pytest.approx(440, abs=2)
    assert pitch(heard[half:]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(length: int):
    data = bytearray(wav_bytes(tone(1)))
    data[40:44] = length.to_bytes(4, "little")
    assert len(audio.decode(bytes(data))) == audio.SAMPLE_RATE


def test_a_flac_written_to_a_pipe_is_read_to_its_end():
    data = bytearray(encode(tone(1), 16000, "flac"))
    data[21] &= 0xF0  # the sample count is 36 bits of the first metadata block
    data[22:26] = bytes(4)
    assert len(audio.decode(bytes(data))) == audio.SAMPLE_RATE


def test_an_mp3_behind_an_id3_tag_with_padding_is_read():
    tag = b"ID3\4\0\0\0\0\1\0" + b"TIT2" + bytes(124)
    data = tag + bytes(300) + encode(tone(1, rate=44100), 44100, "mp3")
    assert len(audio.decode(data)) == pytest.approx(audio.SAMPLE_RATE, abs=0.1 * audio.SAMPLE_RATE)


def test_reading_stops_within_a_block_behind_the_limit():
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros(8000 * 600, np.int16))  # ten hours in all
    bomb = out.getvalue()
    assert len(bomb) < 1_000_000
    blocks = 0

    def count() -> None:
        nonlocal blocks
        blocks += 1

    with pytest.raises(AudioTooLong, match=r"at least 30\.\d s long; the limit is 30 s") as caught:
        audio.decode(bomb, max_duration=30, check=count)
    assert blocks <= 122
    assert 30 < caught.value.details["duration"] < 31
    assert caught.value.details["maximum"] == 30


def test_a_clip_of_exactly_the_limit_is_not_too_long():
    assert len(audio.decode(wav_bytes(tone(2)), max_duration=2)) == 2 * audio.SAMPLE_RATE


def test_what_the_check_raises_ends_the_work():
    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        audio.decode(wav_bytes(tone(1)), check=stop)


@pytest.mark.parametrize("format_", ["wav", "webm-live", "mp4", "aac", "mp3", "opus"])
def test_reading_is_bounded_in_time(format_: str):
    data = encode(tone(1, rate=48000), 48000, format_)
    with pytest.raises(BadAudio, match="could not be read within 1e-09 s"):
        audio.decode(data, timeout=1e-9)


def test_the_whole_is_bounded_in_time_too():
    with pytest.raises(BadAudio, match="could not be read within"):
        audio.decode(wav_bytes(tone(3)), timeout=0.1, check=lambda: time.sleep(0.06))


def test_a_format_that_is_not_allowed_is_named_with_those_that_are():
    with pytest.raises(
        BadAudio, match=r"flac is not allowed here; send one of wav, mp3$"
    ) as caught:
        audio.decode(encode(tone(1), 16000, "flac"), formats=("mp3", "wav"))
    assert caught.value.details == {"seen": "flac", "allowed": ["wav", "mp3"]}


@pytest.mark.parametrize(("format_", "name"), [("opus", "ogg"), ("m4a", "mp4"), ("mp4", "m4a")])
def test_one_container_goes_by_two_names(format_: str, name: str):
    assert len(audio.decode(encode(tone(1), 16000, format_), formats=(name,)))


def test_vorbis_does_not_pass_as_opus():
    with pytest.raises(BadAudio, match="ogg is not allowed"):
        audio.decode(encode(tone(1), 16000, "ogg"), formats=("opus",))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_samples_that_are_not_numbers_are_refused(value: float):
    samples = np.stack([tone(1, rate=44100)] * 2, axis=1)
    samples[2000:2010] = value
    with pytest.raises(BadAudio, match="not finite"):
        audio.decode(encode(samples, 44100, "wav-float"))


def test_warming_up_takes_both_roads(monkeypatch: pytest.MonkeyPatch):
    real, sizes = audio.decode, []
    monkeypatch.setattr(audio, "decode", lambda data: sizes.append(len(real(data))))
    audio.warm_up()
    assert len(sizes) == 2
    assert all(sizes)


def test_the_rate_is_the_one_that_stages_know():
    assert audio.SAMPLE_RATE == plugin.SAMPLE_RATE


def test_every_clip_of_real_speech_decodes_to_its_length(speech):
    lines = (speech / "manifest.jsonl").read_text().splitlines()
    wrong = {}
    for clip in map(json.loads, lines):
        heard = audio.decode((speech / clip["file"]).read_bytes(), timeout=60)
        seconds = len(heard) / audio.SAMPLE_RATE
        if abs(seconds - clip["seconds"]) > max(0.05, clip["seconds"] / 100):
            wrong[clip["id"]] = seconds
    assert len(lines) > 100
    assert wrong == {}


@pytest.mark.parametrize("name", ["jfk-flac.flac", "jfk-mp3.mp3", "jfk-m4a.m4a"])
def test_one_sentence_sounds_the_same_in_every_format(speech, name: str):
    wav = audio.decode((speech / "clips" / "jfk-wav.wav").read_bytes())
    heard = audio.decode((speech / "clips" / name).read_bytes())
    size = 1 << 19
    spectrum = np.fft.rfft(wav, size).conj() * np.fft.rfft(heard, size)
    across = np.fft.irfft(spectrum)
    likeness = across.max() / (np.linalg.norm(wav) * np.linalg.norm(heard))
    delay = (int(across.argmax()) + size // 2) % size - size // 2
    assert likeness > 0.95
    assert abs(delay) < 0.06 * audio.SAMPLE_RATE
