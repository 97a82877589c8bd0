"""What the bus may ask of this worker's cache: to answer from it while every slot is taken, to empty it."""

import logging
import time
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.arrivals import request_id_of
from bus_worker.bus import Bus, may_answer
from bus_worker.errors import BusWorkerError
from bus_worker.messages import error_to_map, pack
from bus_worker.requests import read_lookup
from bus_worker.subjects import Subjects
from bus_worker.transcriber import Transcriber

__all__ = ["CacheControl"]

_log = logging.getLogger(__name__)


class CacheControl:
    """Answers `stt.v1.lookup.<model>`, one worker of the group each, and `stt.control.cache.clear`, all."""

    def __init__(self, bus: Bus, names: Subjects, queue: str, transcriber: Transcriber) -> None:
        """Args: transcriber is the worker's; queue the group whose members share the lookups."""
        self._bus = bus
        self._names = names
        self._queue = queue
        self._transcriber = transcriber
        self._subs: list[Subscription] = []

    async def start(self) -> None:
        """Begin to listen."""
        subscribe = self._bus.client.subscribe
        self._subs.append(await subscribe(self._names.cache_clear, cb=self._clear))
        lookup = self._names.lookup(self._transcriber.model.name)
        self._subs.append(await subscribe(lookup, queue=self._queue, cb=self._lookup))

    async def stop(self) -> None:
        """Listen no more."""
        await self._bus.unsubscribe(self._subs)

    async def _lookup(self, msg: Msg) -> None:
        received = time.monotonic()
        if not may_answer(msg.reply):
            return
        try:
            found = await self._transcriber.lookup(
                read_lookup(msg.data), request_id=request_id_of(msg), received=received
            )
            said: dict[str, Any] = {"known": False} if found is None else found.to_map()
        except BusWorkerError as error:
            said = error_to_map(error)
        await self._bus.client.publish(msg.reply, pack(said))

    async def _clear(self, msg: Msg) -> None:
        said: dict[str, Any] = {"worker_id": self._transcriber.worker_id}
        try:
            said["cleared"] = await self._transcriber.recall.cache.clear()
        except BusWorkerError as error:
            said |= error_to_map(error)
        _log.info("cache cleared: %s", said.get("cleared"))
        if may_answer(msg.reply):
            await self._bus.client.publish(msg.reply, pack(said))
