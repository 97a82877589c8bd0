"""Clips with what is said in them: a manifest, or a folder of audio with texts beside."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_worker.errors import SetupError

__all__ = ["Clip", "read_clips"]

MANIFEST = "manifest.jsonl"
LANGUAGE = "en"
"""Of a text that lies beside its audio and says nothing of it."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One file, its words and their language."""

    name: str
    audio: bytes
    text: str
    language: str
    seconds: float


def read_clips(place: Path, *, longest: float, languages: frozenset[str] | None) -> list[Clip]:
    """The clips of a manifest (or of a folder) with a text, of no more than so many seconds.

    A manifest has one JSON object a line: `file` (beside it), `text`, `language`, `seconds`; rows
    with `kind` "derived" are other rows' sound again, and left out. A folder without a manifest
    has `name.txt` beside `name.wav`.

    Raises:
        SetupError: nothing to listen to is there.
    """
    if place.is_dir() and (place / MANIFEST).is_file():
        place = place / MANIFEST
    found = list(_beside_texts(place) if place.is_dir() else _listed(place))
    clips = [
        clip
        for clip in found
        if clip.seconds <= longest and (languages is None or clip.language in languages)
    ]
    if not clips:
        raise SetupError(f"{place}: no clip with a text, of {longest:g} s or less, is there")
    return clips


def _listed(manifest: Path) -> Iterator[Clip]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        rows: list[Mapping[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as exc:
        raise SetupError(f"{manifest}: not a manifest of one JSON object a line") from exc
    for row in rows:
        if row.get("text") and row.get("kind") != "derived":
            try:
                audio = (manifest.parent / row["file"]).read_bytes()
            except (OSError, KeyError) as exc:
                raise SetupError(f"{manifest}: a row's file is not there: {exc}") from exc
            name, language = str(row.get("id") or row["file"]), row.get("language") or LANGUAGE
            yield Clip(name, audio, row["text"], language, row.get("seconds") or _seconds(audio))


def _beside_texts(folder: Path) -> Iterator[Clip]:
    for text in sorted(folder.glob("*.txt")):
        for file in sorted(folder.glob(f"{text.stem}.*")):
            if file != text:
                audio = file.read_bytes()
                said = text.read_text(encoding="utf-8").strip()
                yield Clip(file.name, audio, said, LANGUAGE, _seconds(audio))


def _seconds(audio: bytes) -> float:
    from bus_worker.audio import SAMPLE_RATE, decode  # noqa: PLC0415 - a client has no libraries for it

    return len(decode(audio)) / SAMPLE_RATE
