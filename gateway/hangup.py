"""Work for a caller who may leave: it ends when the caller does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from bus_worker.errors import Cancelled

__all__ = ["until_left"]

T = TypeVar("T")


async def until_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up; the body must have been read.

    Raises:
        Cancelled: the caller has left.
    """
    task = asyncio.create_task(work, name="work")
    left = asyncio.create_task(_left(request), name="left")
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("the caller has hung up")
    finally:
        task.cancel()
        left.cancel()
        await asyncio.wait({task, left})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
