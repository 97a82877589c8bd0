"""What a file's own headers promise, held against its bytes before any demuxer sees it.

A header that promises more than there is means a file cut short. An mp4 of 19 kB whose index
claims 50 million samples took FFmpeg 1.8 GB and 5 s (measured): the index must fit the file.
"""

import re
from collections.abc import Iterator

from bus_worker.audio.sniff import Kind
from bus_worker.audio.source import STEP, Source
from bus_worker.errors import BadAudio

__all__ = ["check_claims"]

UNKNOWN = 0x7FFF_F000
"""From here up a WAV's length means "unknown": what sox, arecord and ffmpeg write to a pipe."""
MAX_CHUNKS = 1000
INDEX_TAGS = re.compile(rb"stsz|stz2|trun|elst|dcomzlib")
TAG_REACH = 32
"""A tag and the numbers behind it are no longer."""
MAX_SAMPLES = 3_000_000
"""FFmpeg takes 36 bytes for each; 4 h have 700 000 frames of AAC, and video as many again."""
BYTES_PER_SAMPLE = 4
"""The least an indexed mp4 sample takes; a silent AAC frame takes 6."""
BYTES_PER_BOX = 64
"""On average at least; live fragments have some 300. A million empty boxes took a second."""
MAX_BOXES = 500_000
ABSURD = 0x2000_0000
"""FFmpeg refuses an index this long by itself; it is also what ASCII that reads `trun` looks like."""


def check_claims(kind: Kind, data: Source) -> None:
    """Refuse what its own header shows to be cut short, or to ask for absurd memory.

    Raises:
        BadAudio: it is so; the message gives the numbers.
    """
    if kind.demuxer == "wav":
        _check_wav(data)
    elif kind.demuxer == "matroska":
        _check_matroska(data)
    elif kind.demuxer == "mov":
        _check_mp4(data)
    elif kind.demuxer == "mp3":
        _check_mp3(data)


def _cut_short(name: str, promised: int, present: int) -> BadAudio:
    return BadAudio(
        f"the {name} is cut short: its header promises {promised} bytes, {present} are there",
        seen=f"a {name} cut short",
    )


def _check_wav(data: Source) -> None:
    """Find the `data` chunk; its length must fit the file."""
    order = "big" if data[:4] == b"RIFX" else "little"
    at, wide = 12, None
    for _ in range(MAX_CHUNKS):
        tag = data[at : at + 4]
        size = int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
        if len(tag) < 4:  # noqa: PLR2004 - a tag has four letters
            raise BadAudio("the wav is cut short: it has no samples", seen="a wav cut short")
        if tag == b"ds64":
            wide = int.from_bytes(data[at + 16 : at + 24], "little")
        if tag == b"data":
            promised = size if wide is None or size < UNKNOWN else wide
            # A sloppy writer counts its own header: only more than the whole file is a cut.
            if len(data) < promised and (promised < UNKNOWN or wide is not None):
                raise _cut_short("wav", promised, len(data) - at - 8)
            return
        at += 8 + size + size % 2
    raise BadAudio(f"the wav has more than {MAX_CHUNKS} chunks before its samples", seen="wav")


def _check_mp3(data: Source) -> None:
    """The Xing header, where an encoder left one in the first frame, may tell the length."""
    at = max(data.find(b"Xing", 4, 48), data.find(b"Info", 4, 48))
    flags = int.from_bytes(data[at + 4 : at + 8])
    if at < 0 or not flags & 2:
        return
    at += 12 if flags & 1 else 8
    promised = int.from_bytes(data[at : at + 4])
    if promised * 0.99 > len(data):  # taggers are sloppy at the ends; mpg123 gives them 1 % too
        raise _cut_short("mp3", promised, len(data))


def _check_matroska(data: Source) -> None:
    """The segment's length must fit the file, unless it is the live one: unknown."""
    header, at = _vint(data, 4)
    at += header or 0
    if data[at : at + 4] != b"\x18\x53\x80\x67":
        return  # something stands in front of the segment: the demuxer's business
    size, at = _vint(data, at + 4)
    if size is not None and at + size > len(data):
        raise _cut_short("webm", at + size, len(data))


def _vint(data: Source, at: int) -> tuple[int | None, int]:
    """An EBML length and where it ends; None is EBML's "unknown"."""
    width = 9 - int.from_bytes(data[at : at + 1]).bit_length()
    unknown = (1 << 7 * width) - 1
    value = int.from_bytes(data[at : at + width]) & unknown
    return (None if value == unknown else value), at + width


def _boxes(data: Source) -> Iterator[tuple[bytes, int, int]]:
    """The mp4's outermost boxes: name, start, promised end."""
    at = 0
    for _ in range(min(1000 + len(data) // BYTES_PER_BOX, MAX_BOXES)):
        if at + 8 > len(data):
            return
        head = data[at : at + 16]
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:])
        elif size == 0:
            size = len(data) - at
        yield head[4:8], at, at + size
        if size < 8:  # noqa: PLR2004 - a box is at least its header; FFmpeg stops here too
            return
        at += size
    raise BadAudio("the mp4 has more boxes than sound", seen="mp4")


def _check_mp4(data: Source) -> None:
    indexed = False
    for name, _, end in _boxes(data):
        if name in (b"moov", b"moof", b"mdat") and end > len(data):
            raise _cut_short("mp4", end, len(data))
        indexed = indexed or name == b"moov"
    if not indexed:
        raise BadAudio("the mp4 is cut short: it has no index (moov)", seen="an mp4 cut short")
    _check_index(data)


def _check_index(data: Source) -> None:
    """Add up what the index claims, wherever FFmpeg might read it; edits multiply the samples."""
    samples, edits = 0, 0
    for tag, behind in _index_tags(data):
        if tag == b"dcomzlib":
            raise BadAudio("the mp4 has a compressed index, which is not read", seen="mp4")
        if tag == b"elst":
            edits += _count(behind, 4)
        elif tag != b"trun":
            samples += _count(behind, 8)
        elif not behind[2:3] > b"\0":  # listed samples take bytes: they end by themselves
            samples += _count(behind, 4)
    claimed = samples * max(edits, 1)
    if claimed * BYTES_PER_SAMPLE > len(data):
        raise BadAudio(
            f"the mp4 is broken: its index claims {samples} samples in {len(data)} bytes",
            seen="mp4",
        )
    if claimed > MAX_SAMPLES:
        raise BadAudio(
            f"the mp4's index has {claimed} samples; at most {MAX_SAMPLES} are read", seen="mp4"
        )


def _index_tags(data: Source) -> Iterator[tuple[bytes, bytes]]:
    """What looks like a part of the index: its name, and the bytes behind it."""
    # A fragment's index may be pointed at wherever it lies, so there the sound is searched too.
    fragmented = data.find(b"moof") >= 0
    for name, start, end in [(b"moof", 0, len(data))] if fragmented else _boxes(data):
        if name == b"mdat":
            continue
        for _, piece in data.pieces(start, min(end, len(data)), more=TAG_REACH):
            for match in INDEX_TAGS.finditer(piece):
                if match.start() < STEP:
                    yield match[0], piece[match.end() : match.end() + TAG_REACH]


def _count(region: bytes, at: int) -> int:
    number = int.from_bytes(region[at : at + 4])
    return number if number < ABSURD else 0
