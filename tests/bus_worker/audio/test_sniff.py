"""The bytes decide what they are, and what is no audio is named."""

import os

import pytest

from bus_worker.audio.sniff import FORMATS as NAMES
from bus_worker.audio.sniff import sniff
from bus_worker.audio.source import Source
from bus_worker.errors import BadAudio
from tests.helpers.tones import FORMATS, encode, tone

SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
OTHERS = [
    (b"", "empty"),
    (b"Dear Sir or Madam,\nplease hear this.\n", "text"),
    ("Grüße, 世界".encode(), "text"),
    (b"\xef\xbb\xbfffconcat version 1.0\nfile 'secret.wav'\n", "an ffconcat list"),
    (b"ffconcat version 1.0\nfile 'secret.wav'\n", "an ffconcat list"),
    (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "an HLS playlist"),
    (SDP, "an SDP description"),
    (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>', "a DASH manifest"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG image"),
    (b'<?xml version="1.0"?>\n<svg/>', "an SVG image"),
    (b"\n  <!DOCTYPE html><html></html>", "an HTML page"),
    (b'{"audio": "UklGRg=="}', "JSON text"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(50), "a JPEG image"),
    (b"GIF89a" + bytes(50), "a GIF image"),
    (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(50), "a WebP image"),
    (b"RIFF\x20\0\0\0AVI LIST" + bytes(50), "an AVI video"),
    (b"\0\0\0\x18ftypheic" + bytes(50), "a HEIC or AVIF image"),
    (b"FORM\0\0\0\x20AIFF" + bytes(50), "AIFF"),
    (b"#!AMR\n" + bytes(50), "AMR"),
    (b"%PDF-1.7" + bytes(50), "a PDF document"),
    (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
    (b"\x1fC\xb6u\x01\xff\xff\xff\xff\xff\xff\xff", "a piece of webm without its beginning"),
    (b"\0\0\0\x68moof" + bytes(50), "a piece of mp4 without its beginning"),
    (bytes(500), "nothing but zeros"),
    (b"ID3\4\0\0\0\0\0\0" * 50, "no format known here"),
    (b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(50), "an ID3 tag with nothing behind it"),
    (b"\xff\xfb\x90\x64" + bytes(2000), "no format known here"),
    (b"\xff\xf1\x60\x40\x01\x7f\xfc" + bytes(2000), "no format known here"),
    (b"\xfe" * 500, "no format known here"),
]


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_known_by_its_own_marks(format_: str):
    kind, start = sniff(Source.of(encode(tone(1), 16000, format_)))
    assert kind.name == format_.partition("-")[0]
    assert start == 0


@pytest.mark.parametrize(
    ("data", "seen"), OTHERS, ids=[f"{s}-{i}" for i, (_, s) in enumerate(OTHERS)]
)
def test_what_is_no_audio_is_refused_by_what_it_looks_like(data: bytes, seen: str):
    with pytest.raises(BadAudio, match=seen):
        sniff(Source.of(data))


def test_a_refusal_lists_what_to_send_instead():
    with pytest.raises(BadAudio, match="send one of " + ", ".join(NAMES)):
        sniff(Source.of(b"hello"))


@pytest.mark.parametrize("size", [10, 10_000, 1_000_000])
def test_noise_is_not_audio(size: int):
    for _ in range(50):
        with pytest.raises(BadAudio):
            sniff(Source.of(os.urandom(size)))


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xfb\x90\x64",  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes
        b"\xff\xf3\x40\xc4",  # MPEG-2 layer III, 32 kbit/s, 22.05 kHz: 104 bytes
        b"\xff\xe3\x18\xc4",  # MPEG-2.5 layer III, 8 kbit/s, 8 kHz: 72 bytes
        b"\xff\xfd\x80\x04",  # MPEG-1 layer II, 128 kbit/s, 44.1 kHz: 417 bytes
        b"\xff\xff\x44\x04",  # MPEG-1 layer I, 128 kbit/s, 48 kHz: 128 bytes
    ],
)
def test_mp3_is_two_frames_whose_lengths_fit(head: bytes):
    length = {0xFB: 417, 0xF3: 104, 0xE3: 72, 0xFD: 417, 0xFF: 128}[head[1]]
    frame = head + bytes(length - 4)
    assert sniff(Source.of(frame * 2))[0].name == "mp3"
    with pytest.raises(BadAudio):
        sniff(Source.of(frame + b"\0" + frame))


def test_tags_in_front_are_stepped_over():
    frames = encode(tone(1), 16000, "mp3")
    tag = b"ID3\4\0\0\0\0\0\x05hello"
    kind, start = sniff(Source.of(tag + tag + bytes(9) + frames))
    assert (kind.name, start) == ("mp3", 2 * len(tag) + 9)
