"""One object stands for bytes and for files on disk, and reads as both would."""

import io
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from bus_worker import audio
from bus_worker.audio import source as module
from bus_worker.audio.source import Source
from bus_worker.errors import BadAudio
from tests.helpers.tones import encode, noise, tone, wav_bytes

DATA = bytes(range(256)) * 40


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    """An unlinked file, as a claim's audio is kept while a job is cut."""
    with tempfile.TemporaryFile() as opened:
        opened.write(DATA)
        opened.flush()
        yield opened


class Failing(io.BytesIO):
    """A disk that breaks half way."""

    def readinto(self, buffer) -> int:
        if self.tell() > len(self.getvalue()) // 2:
            raise OSError(5, "Input/output error")
        return super().readinto(buffer)

    def read(self, size=-1) -> bytes:
        if self.tell() > len(self.getvalue()) // 2:
            raise OSError(5, "Input/output error")
        return super().read(size)


def both(file: BinaryIO, start: int) -> tuple[bytes, list[Source]]:
    return DATA[start:], [Source.of(DATA).behind(start), Source.of(file).behind(start)]


@pytest.mark.parametrize("start", [0, 7, 300, len(DATA), len(DATA) + 9])
def test_slices_and_searches_are_those_of_bytes(file: BinaryIO, start: int):
    plain, sources = both(file, start)
    for source in sources:
        assert len(source) == len(plain)
        for part in (slice(0, 4), slice(250, 600), slice(9, 3), slice(len(DATA) - 5, None)):
            assert source[part] == plain[part]
        for mark in (b"\xff\0\1", b"\3\4", b"none"):
            assert source.find(mark) == plain.find(mark)
            assert source.find(mark, 100, 500) == plain.find(mark, 100, 500)


@pytest.mark.parametrize("start", [0, 300])
def test_it_reads_and_seeks_as_a_file_of_the_rest(file: BinaryIO, start: int):
    plain, sources = both(file, start)
    for source in sources:
        source.seek(0)
        assert (source.read(10), source.tell()) == (plain[:10], 10)
        buffer = bytearray(6)
        assert source.readinto(buffer) == 6
        assert bytes(buffer) == plain[10:16]
        assert source.seek(-4, io.SEEK_END) == len(plain) - 4
        assert source.seek(1, io.SEEK_CUR) == len(plain) - 3
        assert source.read() == plain[-3:]


def test_a_mark_across_two_pieces_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "STEP", 16)
    source = Source.of(b"." * 14 + b"moof" + b"." * 30 + b"moov")
    assert (source.find(b"moof"), source.find(b"moov"), source.find(b"mdat")) == (14, 48, -1)
    assert [at for at, _ in source.pieces(0, 40)] == [0, 16, 32]
    assert [len(piece) for _, piece in source.pieces(0, 40, more=4)] == [20, 20, 8]


def test_it_reads_as_ended_once_time_is_up(file: BinaryIO):
    for source in both(file, 0)[1]:
        assert source.read(1) == b"\0"
        source.until = 0
        assert source.late
        assert source.read() == b""
        assert source.readinto(bytearray(2)) == 0


def test_a_file_stays_open_and_is_read_from_its_start_again(file: BinaryIO):
    file.seek(0)
    file.write(wav_bytes(tone(3)))
    file.truncate()
    file.flush()
    first, again = (b"".join(block.tobytes() for block in audio.blocks(file)) for _ in range(2))
    assert first == again
    assert not file.closed


@pytest.mark.parametrize("format_", ["wav", "flac", "opus", "mp3", "mp4"])
def test_a_disk_that_fails_is_no_short_recording(format_: str, monkeypatch: pytest.MonkeyPatch):
    """The libraries print and drop what a read raises, and take it for the end."""
    broken = Failing(encode(noise(60, rate=48000), 48000, format_))
    monkeypatch.setattr(Source, "of", Source)
    with pytest.raises(OSError, match="Input/output"):
        list(audio.blocks(broken))


def test_an_empty_file_is_refused_as_empty_bytes_are(file: BinaryIO):
    file.truncate(0)
    with pytest.raises(BadAudio, match="0 bytes"):
        next(audio.blocks(file))
