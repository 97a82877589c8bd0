"""A caller's bytes, in memory or in a file on disk: sliced, searched, and read under a time limit."""

import io
import math
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["Source"]

STEP = 1 << 20
"""Bytes of a long file that are in memory at once."""
BUFFER = 1 << 16
"""Libsndfile asks for 8 kB at a time; each would be a call of the system's."""


class Source:
    """A file from `start` on, for the libraries to read; its first byte is number 0.

    It reads as ended once time is up, so that no library works on it for ever: an exception here
    would be printed and dropped by the C library above it. For the same reason a disk that fails
    is remembered in `failed`.
    """

    until: float = math.inf
    failed: OSError | None = None

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        """Args: file to seek and read in, which nobody else may do meanwhile; it is not closed."""
        self._file = file
        self._start = start
        self._length = max(0, file.seek(0, io.SEEK_END) - start)
        file.seek(start)

    @classmethod
    def of(cls, data: bytes | BinaryIO) -> "Source":
        """Bytes, or a file on disk."""
        if isinstance(data, bytes):
            return cls(io.BytesIO(data))
        return cls(io.BufferedReader(io.FileIO(data.fileno(), closefd=False), BUFFER))

    def behind(self, start: int) -> "Source":
        """The same file without its first bytes."""
        return Source(self._file, self._start + start)

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self.until

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._length)
        self.seek(start)
        return self._file.read(max(0, stop - start))

    def find(self, mark: bytes, start: int = 0, stop: int | None = None) -> int:
        """Where these bytes are, as `bytes.find` tells it."""
        stop = self._length if stop is None else min(stop, self._length)
        for at, piece in self.pieces(start, stop, more=len(mark) - 1):
            found = piece.find(mark)
            if found >= 0:
                return at + found
        return -1

    def pieces(self, start: int, stop: int, more: int = 0) -> Iterator[tuple[int, bytes]]:
        """The bytes between two places, a step at a time; each piece has `more` of the next one's."""
        for at in range(start, stop, STEP):
            yield at, self[at : min(at + STEP + more, stop)]

    def read(self, size: int = -1) -> bytes:
        """As a file does, until time is up."""
        if self.late:
            return b""
        try:
            return self._file.read(size)
        except OSError as exc:
            self.failed = exc
            return b""

    def readinto(self, buffer: Any) -> int:
        """As a file does, until time is up."""
        if self.late:
            return 0
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined,no-any-return]  # not in BinaryIO
        except OSError as exc:
            self.failed = exc
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As a file does."""
        if whence == io.SEEK_SET:
            offset += self._start
        return self._file.seek(offset, whence) - self._start

    def tell(self) -> int:
        """As a file does."""
        return self._file.tell() - self._start
