"""From a model's name to verified files on disk: a folder, MODEL_DIR, an installed package, the hub.

Every file of a model with a known revision is hashed at every start, beside the imports (`base`:
0.1 s): a stamp that says "verified before" would be one more thing to go stale.
"""

import contextlib
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bus_worker.errors import BadSetting, ModelUnavailable
from bus_worker.messages import ModelInfo
from bus_worker.model_store import files
from bus_worker.model_store.catalogue import Entry, catalogue, entry_for
from bus_worker.model_store.hub import Hub, fetch

__all__ = ["Entry", "LocalModel", "catalogue", "find_model", "installed", "pull", "verify"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model's files on disk."""

    path: Path
    info: ModelInfo
    source: Literal["folder", "store", "package", "hub"]


def find_model(
    name: str,
    *,
    model_dir: Path | None = None,
    model_name: str | None = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    stop: threading.Event | None = None,
) -> LocalModel:
    """The verified files of a model, fetched if need be.

    Args:
        name: a short name (`base`), `org/repo` on the hub, or a folder.
        model_dir: where the operator keeps models, each in a folder of its name.
        model_name: what to call it instead of its own name.
        cache_dir: where else models are kept (default: the user's cache folder).
        endpoint: another hub than the public one.
        stop: set it to end a download at its next block.

    Raises:
        ModelUnavailable: no such model, a file that is not what it should be, no network.
        BadSetting: `model_name` cannot be part of a subject.
    """
    hub = Hub(endpoint, stop or threading.Event())
    with _disk_errors(name):
        if (folder := _as_folder(name)) is not None:
            found = LocalModel(folder, ModelInfo(folder.name, files.fingerprint(folder)), "folder")
        else:
            entry = entry_for(name)
            places = _places(entry, model_dir, cache_dir)
            found = _here(entry, places) or _brought(entry, places, hub)
    return _served_as(found, model_name)


def verify(
    name: str, *, model_dir: Path | None = None, cache_dir: Path | None = None
) -> LocalModel:
    """Hash every file of a model that is here; nothing is fetched.

    Raises:
        ModelUnavailable: it is not here, or a file is not what it should be.
    """
    if _as_folder(name) is not None:
        return find_model(name)
    entry = entry_for(name)
    with _disk_errors(name):
        found = _here(entry, _places(entry, model_dir, cache_dir))
    if found is None:
        raise ModelUnavailable(
            f"model {name!r} is not here; `bus-worker models pull {name}` fetches it"
        )
    return _served_as(found, None)


def pull(
    name: str,
    *,
    model_dir: Path | None = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
) -> LocalModel:
    """Have the model here and whole: as `find_model`, but files found damaged are fetched again.

    Raises:
        ModelUnavailable: as `find_model`.
    """
    if _as_folder(name) is None:
        entry = entry_for(name)
        with _disk_errors(name):
            for place in _places(entry, model_dir, cache_dir):
                _drop_damaged(entry, place)
    return find_model(name, model_dir=model_dir, cache_dir=cache_dir, endpoint=endpoint)


def installed(*, model_dir: Path | None = None, cache_dir: Path | None = None) -> list[LocalModel]:
    """The models here that need no network, not verified."""
    found: dict[str, LocalModel] = {}
    names = {entry.folder: entry for entry in catalogue()}
    for root in _roots(model_dir, cache_dir):
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if not files.missing(path):
                entry = names.get(path.name) or Entry(path.name.replace("--", "/", 1), "")
                info = ModelInfo(entry.name, entry.revision or files.read_record(path)[0])
                found.setdefault(entry.name, LocalModel(path, info, "store"))
    for entry in catalogue():
        if folders := _package_folders(entry):
            info = ModelInfo(entry.name, entry.revision)
            found.setdefault(entry.name, LocalModel(folders[0], info, "package"))
    return list(found.values())


def _as_folder(name: str) -> Path | None:
    """The folder that `name` means, or None where it is a name.

    Raises:
        ModelUnavailable: it is written as a path and no model lies there.
    """
    if any(name == entry.name for entry in catalogue()):
        return None
    path = Path(name).expanduser().absolute()
    if not path.is_dir():
        if name.startswith(("/", ".", "~")) or name.count("/") > 1:
            raise ModelUnavailable(f"there is no folder {path}; WHISPER_MODEL takes one or a name")
        return None
    if lacking := files.missing(path):
        raise ModelUnavailable(
            f"{path} is no model in CTranslate2's format: it lacks {lacking}; convert with"
            " ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
        )
    return path


def _served_as(found: LocalModel, wished: str | None) -> LocalModel:
    """The model under the name that subjects and answers carry: letters, digits, `.`, `_`, `-`."""
    if wished is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", wished):
        raise BadSetting(
            f"MODEL_NAME={wished!r}: letters, digits, '.', '_' and '-' only", variable="MODEL_NAME"
        )
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", found.info.name.rpartition("/")[2]).strip("-")
    return replace(found, info=ModelInfo(wished or own or "model", found.info.revision))


def _roots(model_dir: Path | None, cache_dir: Path | None) -> list[Path]:
    """Where models are kept: the operator's folder, then the user's cache."""
    if cache_dir is None:
        try:
            cache_dir = Path.home() / ".cache" / "bus-worker" / "models"
        except RuntimeError as exc:
            if model_dir is None:
                raise ModelUnavailable("this user has no home folder; set MODEL_DIR") from exc
    return [root for root in (model_dir, cache_dir) if root is not None]


def _places(entry: Entry, model_dir: Path | None, cache_dir: Path | None) -> list[Path]:
    return [root / entry.folder for root in _roots(model_dir, cache_dir)]


def _here(entry: Entry, places: list[Path]) -> LocalModel | None:
    """The model as it lies whole on this machine, verified."""
    for place in places:
        revision, recorded = files.read_record(place)
        expected = entry.files or recorded
        if files.missing(place) or not all((place / name).is_file() for name in expected):
            continue
        if wrong := files.damaged(place, expected):
            raise ModelUnavailable(
                f"{place / wrong[0]} is not the file of model {entry.name!r} (its SHA-256 is wrong):"
                f" `bus-worker models pull {entry.name}` fetches it again"
            )
        # Put there by hand under a name whose digests only the hub knows: it is the operator's own.
        revision = entry.revision or revision or files.fingerprint(place)
        return LocalModel(place, ModelInfo(entry.name, revision), "store")
    folders = _package_folders(entry)
    if len(folders) != 1:
        return None
    if wrong := files.damaged(folders[0], entry.files):
        raise _bad_package(entry, wrong[0])
    return LocalModel(folders[0], ModelInfo(entry.name, entry.revision), "package")


def _brought(entry: Entry, places: list[Path], hub: Hub) -> LocalModel:
    """The model joined from the parts of its packages, or fetched, into the first place we may write."""
    place = _writable(places)
    if folders := _package_folders(entry):
        # The weights last: a worker beside us does not take a folder without them for a model.
        for name in sorted(entry.files, key=lambda name: name == files.WEIGHTS):
            parts = [part for folder in folders for part in sorted(folder.glob(f"{name}*"))]
            if not files.join(place / name, parts, entry.files[name]):
                raise _bad_package(entry, name)
        return LocalModel(place, ModelInfo(entry.name, entry.revision), "package")
    return LocalModel(place, ModelInfo(entry.name, fetch(entry, place, hub)), "hub")


def _package_folders(entry: Entry) -> list[Path]:
    """Where the Python packages that hold the model are; empty unless all are installed."""
    found = []
    for package, inside in entry.package:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return []
        found.append(Path(spec.submodule_search_locations[0]) / inside)
    return found


def _bad_package(entry: Entry, file: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{file} of the installed package {entry.package[0][0]} has a wrong SHA-256: reinstall it"
        f" (pip install --force-reinstall 'bus-worker[{entry.extra}]')"
    )


def _drop_damaged(entry: Entry, place: Path) -> None:
    for name in files.damaged(place, entry.files or files.read_record(place)[1]):
        if (place / name).is_file():
            _log.warning("%s is damaged and will be fetched again", place / name)
            (place / name).unlink()


def _writable(places: list[Path]) -> Path:
    """The first place that can be made and written."""
    for place in places:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return place
    raise ModelUnavailable(
        f"cannot write to {' or '.join(str(place.parent) for place in places)};"
        " set MODEL_DIR to a folder that can be written"
    )


@contextlib.contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    """What the disk refuses, as one sentence."""
    try:
        yield
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise ModelUnavailable(
            f"model {name!r}: {exc.strerror or exc}{where};"
            " MODEL_DIR must be a folder that this user can read and write"
        ) from exc
