"""Bytes to blocks of 16 kHz mono float32, safely: who sent them is not trusted.

`blocks` is a stream for files of any length, `decode` joins it for a clip. The bytes' own marks
choose the format (`sniff`), their headers must not promise more than is there (`claims`), and
only then one library reads them (`readers`), through an object that can be stopped (`source`).

Resampling is soxr's stream: librosa's own `resample` calls the same soxr for a whole clip at
once, and brings an import of seconds (numba) for it.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Generator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from bus_worker.audio.claims import check_claims
from bus_worker.audio.readers import Mono, Piece, read_pieces
from bus_worker.audio.sniff import FORMATS, Format, Kind, sniff
from bus_worker.audio.source import Source
from bus_worker.errors import AudioTooLong, BadAudio

__all__ = ["FORMATS", "SAMPLE_RATE", "Format", "blocks", "decode", "warm_up"]

SAMPLE_RATE = 16_000
"""Samples a second of every block."""
TIMEOUT = 10.0
"""Seconds: a clip of 30 s takes about a tenth of one."""
SILENT_AAC = bytes.fromhex("fff16040017ffc01182007")
"""One ADTS frame of 64 ms."""


def blocks(
    data: bytes | BinaryIO,
    *,
    formats: Collection[str] = FORMATS,
    max_duration: float | None = None,
    timeout: float = TIMEOUT,
) -> Generator[npt.NDArray[np.float32]]:
    """The sound as blocks of about a quarter of a second: 16 kHz, mono, float32.

    Args:
        data: a file in one of the formats: its bytes, or the file itself, open and on disk. That
            is never in memory as a whole, nobody else may read it meanwhile, and it stays open.
        formats: those that are allowed, of `FORMATS`.
        max_duration: seconds; reading stops a block behind it, whatever the headers say.
        timeout: seconds that the libraries may take for one block.

    Raises:
        BadAudio: not audio, broken, cut short, not allowed, or it takes too long.
        AudioTooLong: there is more sound than `max_duration`.
        OSError: the disk cannot be read.
    """
    kind, source = _opened(data, formats)
    length = 0
    # Closing at once what a consumer leaves half read frees the decoder's memory with it.
    with contextlib.closing(_timed(read_pieces(kind, source), source, timeout)) as pieces:
        for block in _resampled(pieces):
            if not np.isfinite(block).all():
                raise BadAudio(f"the {kind.name} has samples that are not finite numbers")
            length += len(block)
            if max_duration is not None and length > max_duration * SAMPLE_RATE:
                raise _too_long(length / SAMPLE_RATE, max_duration)
            yield block
    if not length:
        raise BadAudio(f"there is no sound in the {kind.name}", seen=f"an empty {kind.name}")


def decode(
    data: bytes,
    *,
    formats: Collection[str] = FORMATS,
    max_duration: float | None = None,
    timeout: float = TIMEOUT,
    check: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float32]:
    """A whole clip: 16 kHz, mono, float32, contiguous.

    Args:
        data: a file in one of the formats.
        formats: those that are allowed, of `FORMATS`.
        max_duration: as `blocks` takes it.
        timeout: seconds that all of it may take.
        check: called between blocks; what it raises ends the work.

    Raises:
        BadAudio: as `blocks` says; so with `AudioTooLong`.
    """
    until = time.monotonic() + timeout
    parts: list[npt.NDArray[np.float32]] = []
    stream = blocks(data, formats=formats, max_duration=max_duration, timeout=timeout)
    with contextlib.closing(stream):
        for block in stream:
            check()
            if time.monotonic() > until:
                raise _too_slow(timeout)
            parts.append(block)
    return np.concatenate(parts)


def warm_up() -> None:
    """Import the libraries and decode a little by each road, so that no caller waits for it."""
    rate = (8000).to_bytes(4, "little")
    samples = bytes(1600)
    wav = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0" + rate + rate + b"\1\0\x08\0"
    decode(wav + b"data" + len(samples).to_bytes(4, "little") + samples)
    decode(SILENT_AAC * 3)


def _opened(data: bytes | BinaryIO, formats: Collection[str]) -> tuple[Kind, Source]:
    """What it is, and its bytes from there on where that begins."""
    source = Source.of(data)
    kind, start = sniff(source)
    if not {kind.name, *kind.also} & set(formats):
        allowed = [name for name in FORMATS if name in formats]
        raise BadAudio(
            f"{kind.name} is not allowed here; send one of {', '.join(allowed)}",
            seen=kind.name,
            allowed=allowed,
        )
    source = source.behind(start)
    check_claims(kind, source)
    source.seek(0)
    return kind, source


def _too_slow(timeout: float) -> BadAudio:
    return BadAudio(f"the audio could not be read within {timeout:g} s", timeout=timeout)


def _too_long(seconds: float, maximum: float) -> AudioTooLong:
    return AudioTooLong(
        f"the audio is at least {seconds:.1f} s long; the limit is {maximum:g} s",
        duration=round(seconds, 3),
        maximum=maximum,
    )


def _timed(pieces: Generator[Piece], source: Source, timeout: float) -> Generator[Piece]:
    """Give the libraries `timeout` for each piece; what the consumer does with it is not counted."""
    while True:
        source.until = time.monotonic() + timeout
        try:
            piece = next(pieces, None)
        except BadAudio as exc:
            raise source.failed or (_too_slow(timeout) if source.late else exc) from exc
        if source.failed:
            raise source.failed
        if source.late:
            raise _too_slow(timeout)
        if piece is None:
            return
        yield piece


def _resampled(pieces: Generator[Piece]) -> Generator[Mono]:
    """At 16 kHz; the rate may change midway (a spliced aac)."""
    import soxr  # noqa: PLC0415 - paid at `warm_up`

    rate, stream = SAMPLE_RATE, None
    for piece_rate, mono in pieces:
        if piece_rate != rate:
            if stream is not None:
                yield from _some(stream.resample_chunk(mono[:0], last=True))
            rate = piece_rate
            stream = (
                None
                if rate == SAMPLE_RATE
                else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
            )
        yield from _some(mono if stream is None else stream.resample_chunk(mono))
    if stream is not None:
        yield from _some(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _some(block: Mono) -> Generator[Mono]:
    if len(block):
        yield block
