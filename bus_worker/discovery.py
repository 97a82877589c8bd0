"""Answers `$SRV.PING|INFO|STATS` as NATS services do (ADR-32), so that `nats micro` lists the worker.

nats-py's own `micro` is not used: its endpoints serve one request at a time and drop what is queued
when they stop.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.bus import Bus, may_answer

__all__ = ["Discovery", "ServiceInfo"]

Stats = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """What a worker says of itself; `metadata` is text to text, as ADR-32 wants."""

    name: str
    id: str
    version: str
    description: str
    subject: str
    queue_group: str
    metadata: dict[str, str]


class Discovery:
    """The three verbs on nine subjects."""

    def __init__(self, bus: Bus, info: ServiceInfo, stats: Stats) -> None:
        """Args: stats gives the endpoint's figures (see `Service.stats`) at the moment of asking."""
        self._bus = bus
        self._info = info
        self._stats = stats
        self._subs: list[Subscription] = []

    async def start(self) -> None:
        """Begin to answer."""
        verbs = {"PING": self._ping, "INFO": self._describe, "STATS": self._figures}
        for verb, answer in verbs.items():
            for tail in ("", f".{self._info.name}", f".{self._info.name}.{self._info.id}"):
                self._subs.append(
                    await self._bus.client.subscribe(f"$SRV.{verb}{tail}", cb=self._answer(answer))
                )

    async def stop(self) -> None:
        """Say nothing more: a worker that leaves is not counted on."""
        await self._bus.unsubscribe(self._subs)

    def _answer(self, what: Callable[[], dict[str, Any]]) -> Any:
        async def respond(msg: Msg) -> None:
            if may_answer(msg.reply):
                await self._bus.client.publish(msg.reply, json.dumps(what()).encode())

        return respond

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self._info.name,
            "id": self._info.id,
            "version": self._info.version,
            "metadata": self._info.metadata,
        }

    def _endpoint(self) -> dict[str, Any]:
        return {
            "name": "transcribe",
            "subject": self._info.subject,
            "queue_group": self._info.queue_group,
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def _describe(self) -> dict[str, Any]:
        return {
            **self._identity("info"),
            "description": self._info.description,
            "endpoints": [{**self._endpoint(), "metadata": {}}],
        }

    def _figures(self) -> dict[str, Any]:
        figures = dict(self._stats())
        return {
            **self._identity("stats"),
            "started": figures.pop("started"),
            "endpoints": [{**self._endpoint(), **figures}],
        }
