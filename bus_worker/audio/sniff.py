"""What the bytes are, by their own marks: the name a file came with is never asked.

Each format has one demuxer, by name. Left to guess, FFmpeg believed text: an ffconcat list had it
read a file of the worker's, an SDP description had it open a socket.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from bus_worker.audio.source import Source
from bus_worker.errors import BadAudio

__all__ = ["FORMATS", "Format", "Kind", "sniff"]

Format = Literal["wav", "mp3", "ogg", "flac", "webm", "m4a", "mp4", "opus", "aac"]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Every format that is read, by the names callers know."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A format we read: its name, the other names it goes by, FFmpeg's one demuxer for it."""

    name: str
    demuxer: str
    also: tuple[str, ...] = ()


WAV = Kind("wav", "wav")
FLAC = Kind("flac", "flac")
OGG = Kind("ogg", "ogg")
OPUS = Kind("opus", "ogg", also=("ogg",))  # Opus lives in Ogg: `.ogg` and `.opus` are both right
MP3 = Kind("mp3", "mp3")
WEBM = Kind("webm", "matroska")
MP4 = Kind("mp4", "mov", also=("m4a",))  # one container, two names
M4A = Kind("m4a", "mov", also=("mp4",))
AAC = Kind("aac", "aac")

OTHERS = (
    # (offset, mark, what it is): only so that a refusal can say what was sent
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"AVI ", "an AVI video"),
    (0, b"FLV", "an FLV video"),
    (0, b"\x00\x00\x01\xba", "an MPEG video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b".snd", "Sun AU"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MThd", "MIDI"),
    (0, b"ADIF", "AAC in ADIF (only ADTS is read)"),
    (0, b"\x1f\x43\xb6\x75", "a piece of webm without its beginning"),
    (4, b"moof", "a piece of mp4 without its beginning"),
    (4, b"styp", "a piece of mp4 without its beginning"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "a program"),
)
TEXTS = (
    # What a text begins with; FFmpeg would open other files or sockets for the first five.
    ("ffconcat", "an ffconcat list"),
    ("#extm3u", "an HLS playlist"),
    ("v=0", "an SDP description"),
    ("<mpd", "a DASH manifest"),
    ("[playlist]", "a playlist"),
    ("<svg", "an SVG image"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("webvtt", "WebVTT subtitles"),
    ("{", "JSON text"),
)
MAX_TAGS = 8
STILLS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")


def sniff(data: Source) -> tuple[Kind, int]:
    """The format, and where it begins (behind ID3 tags).

    Raises:
        BadAudio: none of the formats that are read; the message says what it looks like.
    """
    if not data:
        raise BadAudio("the audio is empty (0 bytes)", seen="nothing")
    start = _behind_id3(data)
    kind = _container(data[start : start + 64]) or _raw_frames(data, start)
    if kind is None:
        head = data[start : start + 2048]
        raise _not_audio(_looks_like(head) if head else "an ID3 tag with nothing behind it")
    return kind, start


def _not_audio(seen: str) -> BadAudio:
    return BadAudio(
        f"this is not audio that can be read: it looks like {seen}; "
        f"send one of {', '.join(FORMATS)}",
        seen=seen,
    )


def _container(head: bytes) -> Kind | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return WAV
    if head[:4] == b"fLaC":
        return FLAC
    if head[:4] == b"OggS":
        return OPUS if b"OpusHead" in head else OGG
    if head[:4] == b"\x1aE\xdf\xa3":  # EBML; FFmpeg's matroska demuxer checks the document type
        return WEBM
    if head[4:8] == b"ftyp":
        return _mp4(head[8:12])
    return None


def _mp4(brand: bytes) -> Kind:
    if brand in STILLS:
        raise _not_audio("a HEIC or AVIF image")
    return M4A if brand in (b"M4A ", b"M4B ") else MP4


def _behind_id3(data: Source) -> int:
    """Where the tags in front of mp3, aac or flac end (0 without any)."""
    start = 0
    for _ in range(MAX_TAGS):
        if data[start : start + 3] != b"ID3" or len(data) < start + 10:
            break
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size
    return _behind_zeros(data, start) if start else 0


def _behind_zeros(data: Source, start: int) -> int:
    """Where the padding ends that some taggers leave behind a tag."""
    for at, piece in data.pieces(start, len(data)):
        sound = piece.lstrip(b"\0")
        if sound:
            return at + len(piece) - len(sound)
    return max(start, len(data))


def _raw_frames(data: Source, start: int) -> Kind | None:
    """Mp3 or ADTS aac, which have no header: two frames in a row that fit together."""
    for kind, length in ((MP3, _mp3_frame), (AAC, _adts_frame)):
        first = length(data, start)
        if first and (start + first >= len(data) or length(data, start + first)):
            return kind
    return None


_MP3_KBPS = {
    # (MPEG-1, layer): kbit/s by the header's index; layer bits count down: 3 is layer I
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _mp3_frame(data: Source, at: int) -> int:
    """Bytes of the MPEG audio frame at this place; 0 if there is none."""
    head = int.from_bytes(data[at : at + 4].ljust(4, b"\0"))
    version, layer = head >> 19 & 3, head >> 17 & 3
    bitrate, rate = head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:  # noqa: PLR2004 - the header's reserved values
        return 0
    mpeg1 = version == 3  # noqa: PLR2004 - two bits: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5
    hertz = (44100, 48000, 32000)[rate] >> (0 if mpeg1 else 1 if version else 2)
    bits = _MP3_KBPS[mpeg1, layer][bitrate - 1] * 1000
    padding = head >> 9 & 1
    if layer == 3:  # noqa: PLR2004 - layer I
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and not mpeg1 else 144) * bits // hertz + padding


def _adts_frame(data: Source, at: int) -> int:
    """Bytes of the ADTS frame at this place; 0 if there is none."""
    head = int.from_bytes(data[at : at + 7].ljust(7, b"\0"))
    sync, layer, rate, length = head >> 44, head >> 41 & 3, head >> 34 & 15, head >> 13 & 0x1FFF
    fits = sync == 0xFFF and layer == 0 and rate < 13 and length > 7  # noqa: PLR2004 - ADTS
    return length if fits else 0


def _looks_like(head: bytes) -> str:
    for offset, mark, name in OTHERS:
        if head.startswith(mark, offset):
            return name
    if not head.strip(b"\0"):
        return "nothing but zeros"
    return _text(head) or "no format known here"


def _text(head: bytes) -> str | None:
    """What kind of text this is; None if it is none."""
    text = head.removeprefix(b"\xef\xbb\xbf").decode(errors="ignore")
    printable = sum(char.isprintable() or char.isspace() for char in text)
    if len(text.encode()) < len(head) - 7 or printable < len(text):
        return None
    words = text.lstrip().lower()
    for mark, name in TEXTS:
        if words.startswith(mark) or (
            mark[0] == "<" and words.startswith("<?xml") and mark in words
        ):
            return name
    return "text"
