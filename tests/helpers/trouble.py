"""Stages that make trouble."""

import asyncio

from bus_worker.errors import Busy, Failed
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.testing import segment

__all__ = ["broken", "reluctant"]


@stage(gives=("segments", "text"))
async def broken(draft: Draft, _: NoOptions) -> None:
    """Say one thing, then fail."""
    draft.emit(segment(" Ask not"))
    await asyncio.sleep(0.05)
    raise Failed("the model failed on this audio")


def reluctant() -> Stage:
    """A stage that has no room the first time, and every other time from then on."""
    asked = 0

    @stage(gives=("segments", "text"))
    async def reluctant(draft: Draft, _: NoOptions) -> None:
        """Have room, or none."""
        nonlocal asked
        asked += 1
        if asked % 2:
            raise Busy
        draft.text = f"asked {asked} times"

    return reluctant
