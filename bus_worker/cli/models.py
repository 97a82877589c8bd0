"""`models`: what is known by name, what is here, whether it is whole."""

from argparse import Namespace
from pathlib import Path

from bus_worker.cli.setup import short, show_downloads
from bus_worker.cli.terminal import complain, say
from bus_worker.errors import ModelUnavailable
from bus_worker.model_store import catalogue, installed, pull, verify
from bus_worker.settings import load_settings

__all__ = ["run"]


def run(args: Namespace) -> int:
    """List, pull or verify."""
    folder = load_settings().model_dir
    if args.action == "list":
        return _list(folder)
    if args.action == "pull":
        show_downloads()
        found = pull(args.name, model_dir=folder)
        say(f"{short(found.info)}: {found.path}")
        return 0
    return _verify(args.name, folder)


def _list(folder: Path | None) -> int:
    here = {found.info.name: found for found in installed(model_dir=folder)}
    names = [entry.name for entry in catalogue()]
    for name in [*names, *sorted(here.keys() - set(names))]:
        found = here.get(name)
        say(f"{name:<18} {found.path if found else '-'}")
    return 0


def _verify(name: str | None, folder: Path | None) -> int:
    names = [name] if name else [found.info.name for found in installed(model_dir=folder)]
    whole = 0
    for each in names:
        try:
            found = verify(each, model_dir=folder)
        except ModelUnavailable as exc:
            complain(exc.message)
        else:
            whole += 1
            say(f"{short(found.info)}: whole, {found.path}")
    if not names:
        say("no model is here; `bus-worker models pull base` fetches one")
    return int(whole < len(names))
