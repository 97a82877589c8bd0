"""Work for a caller who may leave: it ends when the caller does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from bus_worker.errors import Cancelled

__all__ = ["until_left"]

T = TypeVar("T")

AGAIN = 0.5
"""Seconds after which work that was cancelled and goes on is cancelled once more."""


async def until_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up; the body must have been read.

    Raises:
        Cancelled: the caller has left.
    """
    left = asyncio.create_task(_left(request), name="left")
    await asyncio.sleep(0)
    if left.done():  # while the body was read: ask for nothing
        work.close()
        raise Cancelled("the caller has hung up")
    task = asyncio.create_task(work, name="work")
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("the caller has hung up")
    finally:
        left.cancel()
        while not task.done():  # a library may swallow the first
            task.cancel()
            await asyncio.wait({task}, timeout=AGAIN)
        await asyncio.wait({left})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
