"""A model's files: which there must be, whether they are what they should be, putting them in place.

Digests are `sha256:…`, or `git:…` for the small files that the hub names as git blobs.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bus_worker.errors import ModelUnavailable

WEIGHTS = "model.bin"
NEEDED = ("config.json", "tokenizer.json", WEIGHTS)
"""Without `tokenizer.json` faster-whisper would go to the network for one when it loads."""
_VOCABULARY = ("vocabulary.txt", "vocabulary.json")
WANTED = frozenset({*NEEDED, *_VOCABULARY, "preprocessor_config.json"})
_RECORD = ".bus-worker.json"
_BLOCK = 1 << 20


def missing(folder: Path) -> str:
    """The files that a folder lacks to be a model, as text."""
    lacking = [name for name in NEEDED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _VOCABULARY):
        lacking.append(" or ".join(_VOCABULARY))
    return ", ".join(lacking)


def damaged(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The files whose digest is wrong, or that are not there."""
    return [name for name, digest in files.items() if not _matches(folder / name, digest)]


def _matches(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    kind, _, expected = digest.partition(":")
    if kind == "git":
        running = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        running = hashlib.new(kind)
    for block in _blocks(path):
        running.update(block)
    return running.hexdigest() == expected


def fingerprint(folder: Path) -> str:
    """What stands for a revision where nobody gave one: other files must not share cached answers."""
    running = hashlib.sha256()
    for name in sorted(name for name in WANTED if (folder / name).is_file()):
        running.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
        for block in _blocks(folder / name):
            running.update(block)
    return f"sha256-{running.hexdigest()[:16]}"


def join(target: Path, parts: Iterable[Path], digest: str) -> bool:
    """Join parts into a file that appears whole or not at all; False if its digest is wrong."""
    kind, _, expected = digest.partition(":")
    running = hashlib.new(kind)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            for part in parts:
                for block in _blocks(part):
                    running.update(block)
                    out.write(block)
        if running.hexdigest() != expected:
            return False
        temporary.chmod(0o644)  # mkstemp's files are for their owner only
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_record(folder: Path, revision: str, files: Mapping[str, str]) -> None:
    """Keep beside fetched files the revision and the digests that the hub gave for it."""
    text = json.dumps({"revision": revision, "files": dict(files)}, indent=2)
    (folder / _RECORD).write_text(text, encoding="utf-8")


def read_record(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The revision and digests that `write_record` kept; None and none where it did not.

    Raises:
        ModelUnavailable: the record cannot be read.
    """
    try:
        record: Any = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return str(record["revision"]), {str(k): str(v) for k, v in record["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return None, {}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelUnavailable(f"{folder / _RECORD} is damaged: delete {folder}") from exc


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
