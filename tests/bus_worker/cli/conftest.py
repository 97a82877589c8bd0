"""Clips for the command line."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three clips."""
    for name, size in (("a.wav", 1), ("b.mp3", 22), ("c.flac", 333)):
        (tmp_path / name).write_bytes(b"x" * size)
    return tmp_path
