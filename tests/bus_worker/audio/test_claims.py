"""A header that promises more than there is, or more than any machine should hold, is refused."""

import struct
import time

import pytest

from bus_worker import audio
from bus_worker.audio import claims, source
from bus_worker.audio.claims import check_claims
from bus_worker.audio.sniff import sniff
from bus_worker.audio.source import Source
from bus_worker.errors import BadAudio
from tests.helpers.tones import encode, tone

WITH_A_LENGTH = [
    *("wav", "wav-pcm24", "wav-float", "wav-ulaw", "wav-extensible", "flac", "mp3"),
    *("webm", "m4a", "mp4", "mp4-faststart", "mp4-fragmented"),
]
WITHOUT = ["ogg", "opus", "webm-live", "aac"]
LIMIT = 0.1
"""Seconds within which a refusal must come, as promised; a busy machine may take ten times that."""


def check(data: bytes) -> None:
    opened = Source.of(data)
    check_claims(sniff(opened)[0], opened)


def put(data: bytes, tag: bytes, offset: int, *numbers: int) -> bytes:
    """Write 32-bit numbers so many bytes behind a box's name."""
    changed = bytearray(data)
    struct.pack_into(f">{len(numbers)}I", changed, data.index(tag) + 4 + offset, *numbers)
    return bytes(changed)


def with_edits(data: bytes, edits: int) -> bytes:
    """An mp4 whose one edit is repeated."""
    at = data.index(b"elst")
    entry = data[at + 12 : at + 24]
    changed = data[: at + 24] + entry * (edits - 1) + data[at + 24 :]
    changed = put(changed, b"elst", 4, edits)
    for name in (b"moov", b"trak", b"edts", b"elst"):
        size = int.from_bytes(data[data.index(name) - 4 : data.index(name)])
        changed = put(changed, name, -8, size + 12 * (edits - 1))
    return changed


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("format_", WITH_A_LENGTH)
def test_a_truncated_file_is_bad_audio_that_says_so(format_: str, part: float):
    data = encode(tone(2, rate=48000), 48000, format_)
    start = time.perf_counter()
    with pytest.raises(BadAudio, match="cut short"):
        audio.decode(data[: int(len(data) * part)])
    assert time.perf_counter() - start < 10 * LIMIT


@pytest.mark.parametrize("format_", WITHOUT)
def test_a_format_that_tells_no_length_gives_what_there_is(format_: str):
    data = encode(tone(8, rate=48000), 48000, format_)
    heard = audio.decode(data[: len(data) * 3 // 4])
    assert 3 < len(heard) / audio.SAMPLE_RATE < 7


@pytest.mark.parametrize("format_", [*WITH_A_LENGTH, *WITHOUT])
def test_the_first_hundred_bytes_alone_are_bad_audio(format_: str):
    with pytest.raises(BadAudio):
        audio.decode(encode(tone(1), 16000, format_)[:100])


@pytest.mark.parametrize("format_", [*WITH_A_LENGTH, *WITHOUT])
def test_junk_behind_the_end_does_no_harm(format_: str):
    data = encode(tone(1), 16000, format_)
    heard = audio.decode(data + b"\x01junk!?\x02" * 100)
    assert len(heard) == pytest.approx(len(audio.decode(data)), abs=0.1 * audio.SAMPLE_RATE)


@pytest.mark.parametrize("samples", [5_000, 50_000_000, 0x0AAA_AAAA, 0x1FFF_FFFF])
def test_an_mp4_that_claims_more_samples_than_bytes_is_refused(samples: int):
    plain = encode(tone(1), 16000, "mp4")
    with pytest.raises(BadAudio, match=f"claims {samples} samples in {len(plain)} bytes"):
        check(put(plain, b"stsz", 4, 1, samples))
    fragmented = encode(tone(1), 16000, "mp4-fragmented")
    with pytest.raises(BadAudio, match=f"claims {samples} samples in {len(fragmented)} bytes"):
        check(put(fragmented, b"trun", 0, 1, samples))


def test_an_index_hidden_in_a_fragments_sound_counts_too():
    fragmented = encode(tone(1), 16000, "mp4-fragmented")
    at = fragmented.index(b"mdat") + 40
    hidden = b"trun" + struct.pack(">II", 1, 50_000_000)
    with pytest.raises(BadAudio, match="claims"):
        check(fragmented[:at] + hidden + fragmented[at + len(hidden) :])


def test_edits_multiply_the_samples():
    data = encode(tone(2), 16000, "mp4")
    check(with_edits(data, 3))
    with pytest.raises(BadAudio, match="claims"):
        check(with_edits(data, 1000))


def test_an_index_that_fits_a_large_file_still_has_its_limit(monkeypatch: pytest.MonkeyPatch):
    """FFmpeg holds 36 bytes for each sample: 500 MB could claim 4 GB."""
    data = encode(tone(2), 16000, "mp4")
    monkeypatch.setattr(claims, "MAX_SAMPLES", 20)
    with pytest.raises(BadAudio, match=r"index has \d+ samples; at most 20 are read"):
        check(data)


@pytest.mark.parametrize("shift", range(0, 24, 3))
def test_an_index_across_two_pieces_of_a_long_file_counts(
    shift: int, monkeypatch: pytest.MonkeyPatch
):
    data = put(encode(tone(1), 16000, "mp4"), b"stsz", 4, 1, 50_000_000)
    step = data.index(b"stsz") - data.index(b"moov") + shift - 8
    monkeypatch.setattr(claims, "STEP", step)
    monkeypatch.setattr(source, "STEP", step)
    with pytest.raises(BadAudio, match="claims 50000000 samples"):
        check(data)


def test_a_title_that_reads_like_an_index_does_no_harm():
    data = encode(tone(1), 16000, "mp4")
    comment = b"a strung up elstree trunk, truncated"
    check(data + (8 + len(comment)).to_bytes(4) + b"free" + comment)


def test_a_compressed_index_is_refused():
    data = encode(tone(1), 16000, "mp4")
    box = b"\0\0\0\x20cmov\0\0\0\x0cdcomzlib\0\0\0\x0ccmvd\0\0\0\x10"
    with pytest.raises(BadAudio, match="compressed index"):
        check(data + box)


def test_an_mp4_without_its_index_is_cut_short():
    data = encode(tone(1), 16000, "mp4")
    with pytest.raises(BadAudio, match="no index"):
        check(data[: data.index(b"moov") - 4])


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x18ftypisom\0\0\0\0isomisom" + b"\0\0\0\x08free" * 1_250_000,
        b"\0\0\0\x18ftypisom\0\0\0\0isomisom" + b"\0\0\0\x01free" + b"\xff" * 8,
        b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 1_250_000,
        b"RIFF\xff\xff\xff\xffWAVE",
        b"RIFF\xff\xff\xff\xffWAVEjunk\xff\xff\xff\xff",
        b"\x1aE\xdf\xa3",
        b"\x1aE\xdf\xa3\0\0\0\0\0\0\0\0\0\0",
        b"\x1aE\xdf\xa3\xff" + b"\xec\x80" * 1_000_000,
    ],
    ids=lambda data: f"{data[:16]!r}-{len(data)}",
)
def test_a_header_that_leads_nowhere_is_soon_refused(data: bytes):
    start = time.process_time()
    with pytest.raises(BadAudio):
        audio.decode(data)
    assert time.process_time() - start < 10 * LIMIT


def test_a_wav_over_4_gib_by_its_wide_header_is_held_to_it():
    plain = encode(tone(1), 16000, "wav")
    wide = struct.pack("<4sI QQQI", b"ds64", 28, 0, 32000, 16000, 0)
    data = b"RF64\xff\xff\xff\xffWAVE" + wide + plain[12:40] + b"\xff" * 4 + plain[44:]
    assert len(audio.decode(data)) == audio.SAMPLE_RATE
    with pytest.raises(BadAudio, match="promises 32000 bytes"):
        check(data[:-16000])


def test_a_sloppy_length_that_counts_the_header_is_no_cut():
    data = bytearray(encode(tone(1), 16000, "wav"))
    data[40:44] = len(data).to_bytes(4, "little")
    assert len(audio.decode(bytes(data))) == pytest.approx(audio.SAMPLE_RATE, abs=1)
