"""Empties this worker's cache when somebody on the bus says so."""

import logging
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.bus import Bus, may_answer
from bus_worker.cache import Cache
from bus_worker.errors import BusWorkerError
from bus_worker.messages import error_to_map, pack
from bus_worker.subjects import Subjects

__all__ = ["CacheControl"]

_log = logging.getLogger(__name__)


class CacheControl:
    """Answers the broadcast `stt.control.cache.clear`."""

    def __init__(self, bus: Bus, names: Subjects, worker_id: str, cache: Cache) -> None:
        """Args: cache is the worker's."""
        self._bus = bus
        self._names = names
        self._worker_id = worker_id
        self._cache = cache
        self._sub: Subscription | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._sub = await self._bus.client.subscribe(self._names.cache_clear, cb=self._clear)

    async def stop(self) -> None:
        """Listen no more."""
        if self._sub is not None:
            try:
                await self._sub.unsubscribe()
            except nats_errors.Error as exc:
                _log.debug("unsubscribe failed: %s", exc)
            self._sub = None

    async def _clear(self, msg: Msg) -> None:
        said: dict[str, Any] = {"worker_id": self._worker_id}
        try:
            said["cleared"] = await self._cache.clear()
        except BusWorkerError as error:
            said |= error_to_map(error)
        _log.info("cache cleared: %s", said.get("cleared"))
        if may_answer(msg.reply):
            await self._bus.client.publish(msg.reply, pack(said))
