"""What a file's own headers promise, held against its bytes before any demuxer sees it.

A header that promises more than there is means a file cut short. An mp4 of 19 kB whose index
claims 50 million samples took FFmpeg 1.8 GB and 5 s (measured): the index must fit the file.
"""

import re
from collections.abc import Iterator

from bus_worker.audio.sniff import Kind
from bus_worker.errors import BadAudio

__all__ = ["check_claims"]

UNKNOWN = 0x7FFF_F000
"""From here up a WAV's length means "unknown": what sox, arecord and ffmpeg write to a pipe."""
MAX_CHUNKS = 1000
INDEX_TAGS = re.compile(rb"stsz|stz2|trun|elst")
BYTES_PER_SAMPLE = 4
"""The least an indexed mp4 sample takes; a silent AAC frame takes 6."""
BYTES_PER_BOX = 64
"""On average at least; live fragments have some 300. A million empty boxes took a second."""
ABSURD = 0x2000_0000
"""FFmpeg refuses an index this long by itself; it is also what ASCII that reads `trun` looks like."""


def check_claims(kind: Kind, data: bytes) -> None:
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


def _check_wav(data: bytes) -> None:
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


def _check_mp3(data: bytes) -> None:
    """The Xing header, where an encoder left one in the first frame, may tell the length."""
    at = max(data.find(b"Xing", 4, 48), data.find(b"Info", 4, 48))
    flags = int.from_bytes(data[at + 4 : at + 8])
    if at < 0 or not flags & 2:
        return
    at += 12 if flags & 1 else 8
    promised = int.from_bytes(data[at : at + 4])
    if promised * 0.99 > len(data):  # taggers are sloppy at the ends; mpg123 gives them 1 % too
        raise _cut_short("mp3", promised, len(data))


def _check_matroska(data: bytes) -> None:
    """The segment's length must fit the file, unless it is the live one: unknown."""
    header, at = _vint(data, 4)
    at += header or 0
    if data[at : at + 4] != b"\x18\x53\x80\x67":
        return  # something stands in front of the segment: the demuxer's business
    size, at = _vint(data, at + 4)
    if size is not None and at + size > len(data):
        raise _cut_short("webm", at + size, len(data))


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """An EBML length and where it ends; None is EBML's "unknown"."""
    width = 9 - int.from_bytes(data[at : at + 1]).bit_length()
    unknown = (1 << 7 * width) - 1
    value = int.from_bytes(data[at : at + width]) & unknown
    return (None if value == unknown else value), at + width


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The mp4's outermost boxes: name, start, promised end."""
    at = 0
    for _ in range(1000 + len(data) // BYTES_PER_BOX):
        if at + 8 > len(data):
            return
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        elif size == 0:
            size = len(data) - at
        yield data[at + 4 : at + 8], at, at + size
        if size < 8:  # noqa: PLR2004 - a box is at least its header; FFmpeg stops here too
            return
        at += size
    raise BadAudio("the mp4 has more boxes than sound", seen="mp4")


def _check_mp4(data: bytes) -> None:
    names, outside = set(), bytearray()
    for name, start, end in _boxes(data):
        if name in (b"moov", b"moof", b"mdat") and end > len(data):
            raise _cut_short("mp4", end, len(data))
        names.add(name)
        if name != b"mdat":
            outside += data[start:end]
    if b"moov" not in names:
        raise BadAudio("the mp4 is cut short: it has no index (moov)", seen="an mp4 cut short")
    if b"dcom" in outside and b"cmvd" in outside:
        raise BadAudio("the mp4 has a compressed index, which is not read", seen="mp4")
    # A fragment's index may be pointed at wherever it lies, so there the samples count too.
    _check_index(data if b"moof" in data else bytes(outside), len(data))


def _check_index(region: bytes, length: int) -> None:
    """Add up what the index claims, wherever FFmpeg might read it; edits multiply the samples."""
    samples, edits = 0, 0
    for match in INDEX_TAGS.finditer(region):
        at = match.end()
        if match[0] == b"elst":
            edits += _count(region, at + 4)
        elif match[0] != b"trun":
            samples += _count(region, at + 8)
        elif (
            not region[at + 2 : at + 3] > b"\0"
        ):  # listed samples take bytes: they end by themselves
            samples += _count(region, at + 4)
    if samples * max(edits, 1) * BYTES_PER_SAMPLE > length:
        raise BadAudio(
            f"the mp4 is broken: its index claims {samples} samples in {length} bytes", seen="mp4"
        )


def _count(region: bytes, at: int) -> int:
    number = int.from_bytes(region[at : at + 4])
    return number if number < ABSURD else 0
