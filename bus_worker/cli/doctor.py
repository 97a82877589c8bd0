"""`doctor`: what is wrong here, and how to mend it."""

import asyncio
from argparse import Namespace

from bus_worker.cli.terminal import say
from bus_worker.doctor import examine

__all__ = ["run"]

MARKS = {True: "✓", False: "✗", None: "-"}


def run(_: Namespace) -> int:
    """Print a line for each thing looked at; 1 if any is wrong."""
    return asyncio.run(_print())


async def _print() -> int:
    wrong = 0
    async for finding in examine():
        wrong += finding.well is False
        say(f"{MARKS[finding.well]} {finding.what:<12} {finding.says}")
    return int(wrong > 0)
