"""Finds stages: the `plugins` folder, extra folders and files, installed entry points; refuses doubles.

Ours come by the same door as anyone's.
"""

import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from bus_worker.errors import BadPlugin
from bus_worker.plugin import Stage

__all__ = ["ENTRY_POINTS", "find_stages"]

ENTRY_POINTS = "bus_worker.stages"

T = TypeVar("T")

_log = logging.getLogger(__name__)


def find_stages(extra: Iterable[str | Path] = ()) -> dict[str, Stage]:
    """Every stage by name: built-in, from `extra` folders or files, from installed packages.

    Raises:
        BadPlugin: a plugin cannot be imported, or two stages have one name; names the files.
    """
    stages: dict[str, Stage] = {}
    for found in (_builtin(), *map(_from_path, extra), _installed()):
        for stage in found:
            double = stages.setdefault(stage.name, stage)
            if double is not stage:
                raise BadPlugin(
                    f"two stages are named {stage.name!r}: {double.source} and {stage.source};"
                    " rename or remove one"
                )
    return stages


def _builtin() -> Iterator[Stage]:
    package = importlib.import_module("plugins")
    for folder in package.__path__:
        for path in _plugin_files(Path(folder)):
            yield from _stages_of(
                _guarded(path, partial(importlib.import_module, f"plugins.{path.stem}"))
            )


def _from_path(place: str | Path) -> Iterator[Stage]:
    place = Path(place).expanduser()
    if not place.exists():
        raise BadPlugin(f"PLUGINS_PATH names {place}, which does not exist")
    for path in [place] if place.is_file() else _plugin_files(place):
        yield from _stages_of(_guarded(path, partial(_load_file, path)))


def _installed() -> Iterator[Stage]:
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
        loaded = _guarded(f"{entry.value} (entry point {entry.name!r})", entry.load)
        if isinstance(loaded, Stage):
            yield loaded
        elif isinstance(loaded, ModuleType):
            yield from _stages_of(loaded)
        else:
            raise BadPlugin(
                f"entry point {entry.name!r} ({entry.value}) is neither a stage nor a module of stages"
            )


def _plugin_files(folder: Path) -> list[Path]:
    """Modules and packages of a folder, in the order of their names; `_private` ones left out."""
    files = [p for p in folder.glob("*.py") if not p.name.startswith(("_", "."))]
    packages = [
        p
        for p in folder.iterdir()
        if (p / "__init__.py").is_file() and not p.name.startswith(("_", "."))
    ]
    return sorted(files + packages)


def _load_file(path: Path) -> ModuleType:
    """A module from a file or package folder outside the import path, under a name of its own."""
    file = path / "__init__.py" if path.is_dir() else path
    # Two folders may hold a file of one name: the path is part of the module's name.
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
    name = f"bus_worker_plugin_{digest}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    locations = [str(path)] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise BadPlugin(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _guarded(what: str | Path, load: Callable[[], T]) -> T:
    """Import somebody's code; whatever it raises becomes one sentence that names it."""
    try:
        return load()
    except BadPlugin:
        raise
    except (Exception, SystemExit) as exc:
        _log.debug("plugin %s failed to import", what, exc_info=True)
        raise BadPlugin(f"plugin {what} cannot be imported: {type(exc).__name__}: {exc}") from exc


def _stages_of(module: ModuleType) -> Iterator[Stage]:
    """The stages that a module defines (not those it only imported)."""
    prefix = f"{module.__name__}."
    for value in vars(module).values():
        if isinstance(value, Stage) and (
            value.module == module.__name__ or value.module.startswith(prefix)
        ):
            yield value
