"""The real clips beside the project, as samples."""

import functools
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bus_worker import audio
from bus_worker.plugin import Samples

JFK = (
    "and so my fellow americans ask not what your country can do for you"
    " ask what you can do for your country"
)


@functools.cache
def manifest(speech: Path) -> dict[str, dict[str, Any]]:
    """What is known of each clip, by id."""
    lines = (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


@functools.cache
def clip(speech: Path, name: str) -> Samples:
    """A clip's samples."""
    data = (speech / manifest(speech)[name]["file"]).read_bytes()
    samples: Samples = audio.decode(data, max_duration=None)
    samples.flags.writeable = False
    return samples


def words(text: str) -> str:
    """Lower-case words, nothing else."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def english_normalizer() -> Callable[[str], str]:
    """Whisper's own way to compare English texts: numbers, spellings and contractions alike."""
    with warnings.catch_warnings():
        # Its source has an invalid escape, which warns when it is first compiled.
        warnings.simplefilter("ignore")
        from whisper_normalizer.english import EnglishTextNormalizer  # noqa: PLC0415
    return EnglishTextNormalizer()
