"""`run`: one worker."""

import asyncio
from argparse import Namespace

from bus_worker.logs import set_up_logs
from bus_worker.settings import load_settings
from bus_worker.worker import run_worker

__all__ = ["run"]


def run(_: Namespace) -> int:
    """Serve until told to stop."""
    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    return asyncio.run(run_worker(settings))
