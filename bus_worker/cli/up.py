"""`up`: a bus and workers on this machine."""

import asyncio
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from bus_worker.cli.setup import prepare_model
from bus_worker.cli.terminal import complain, say
from bus_worker.settings import load_settings
from bus_worker.up import up

__all__ = ["run"]


def run(args: Namespace) -> int:
    """Prepare the model here, where a terminal shows its download, then keep the house."""
    settings = load_settings()
    if args.bus_host and "nats_url" in settings.model_fields_set:
        complain("--bus-host opens a bus of `up`'s own, but NATS_URL names another: give only one")
        return 2
    served = prepare_model(settings)
    asyncio.run(
        up(
            settings,
            bus_host=args.bus_host,
            workers=args.workers or settings.api_workers,
            model=settings.default_model or served,
            program=_program(),
            say=say,
        )
    )
    return 0


def _program() -> str:
    """How this command line is called from here."""
    if shutil.which("bus-worker"):
        return "bus-worker"
    if Path(sys.argv[0]).name == "bus-worker":
        return sys.argv[0]
    return f"{sys.executable} -m bus_worker"
