"""Workers in the test's own process, on a real nats-server, with a pretended engine."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from bus_worker.bus import Address, Bus
from bus_worker.cache import Cache, NoCache
from bus_worker.cache_control import CacheControl
from bus_worker.claim_check import ClaimCheck
from bus_worker.client import TranscribeClient
from bus_worker.dead_letters import DeadLetters
from bus_worker.discovery import Discovery, ServiceInfo
from bus_worker.embedded import NatsServer
from bus_worker.jobs import JobWorker, Limits, Means
from bus_worker.messages import ModelInfo
from bus_worker.metrics import Metrics
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Stage
from bus_worker.recall import Recall
from bus_worker.request_line import RequestLine
from bus_worker.results import Results
from bus_worker.service import Service
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.testing import pretend
from bus_worker.transcriber import Transcriber
from bus_worker.webhook_rules import WebhookRules
from plugins.decode import decode
from plugins.limits import limits
from plugins.tidy import tidy

NAMES = Subjects()


class Workers:
    """Starts workers and clients; all are taken down at the end of the block."""

    def __init__(self, server: NatsServer, **who: Any) -> None:
        """Args: who are fields of `Address`: the workers' user on a bus whose streams an admin has made."""
        self.server = server
        self.who = who
        self.stack = AsyncExitStack()
        self.made = 0
        self.jobs: list[JobWorker] = []

    async def __aenter__(self) -> Self:
        await self.stack.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stack.aclose()

    async def bus(self, **address: Any) -> Bus:
        bus = Bus()
        await bus.open(Address((self.server.url,), **{**self.who, **address}))
        self.stack.push_async_callback(bus.close)
        return bus

    async def start(
        self,
        *stages: Stage,
        slots: int = 1,
        model: str = "pretend",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        request_timeout: float = 30.0,
        cache: Cache | None = None,
        jobs: Limits | None = None,
        job_slots: int | None = None,
        rules: WebhookRules | None = None,
        line: RequestLine | None = None,
        figures: Mapping[str, Any] | None = None,
        **pretended: Any,
    ) -> Service:
        """One worker, which takes jobs too if it is told their limits, and says `figures` of itself; `pretended` are the engine's options."""
        chosen = stages or (pretend,)
        given = {"pretend": pretended, **(options or {})}
        pipeline = Pipeline.order(
            [stage.name for stage in chosen],
            {stage.name: stage for stage in chosen},
            lambda stage: stage.options(**given.get(stage.name, {})),
        )
        opened = await self.stack.enter_async_context(pipeline.open())
        bus = await self.bus()
        self.made += 1
        transcriber = Transcriber(
            pipeline=opened, model=ModelInfo(model), worker_id=f"w{self.made}",
            max_bytes=10_000_000, recall=Recall(cache or NoCache()),
        )  # fmt: skip
        line = line or RequestLine(
            Metrics(), model, transcriber.worker_id, caches=transcriber.recall.cache.keeps
        )
        service = Service(
            bus,
            transcriber,
            names=Subjects(),
            queue="stt-workers",
            slots=slots,
            request_timeout=request_timeout,
            line=line,
        )
        info = ServiceInfo(
            name="stt", id=transcriber.worker_id, version="0.1.0", description="Speech to text",
            subject=Subjects().transcribe(model), queue_group="stt-workers",
            metadata={"model": model, "revision": "", "slots": str(slots)},
        )  # fmt: skip
        more = figures or {}
        discovery = Discovery(
            bus, info, lambda: (said := service.stats()) | {"data": said["data"] | more}
        )
        control = CacheControl(bus, Subjects(), "stt-workers", transcriber)
        await service.start()
        await discovery.start()
        await control.start()
        if jobs is not None:
            if not self.who:
                await make_streams(bus.client, NAMES, model)
            means = Means(
                bus=bus, names=NAMES, transcriber=transcriber, results=Results(bus.client, NAMES),
                checks=ClaimCheck(bus.client, NAMES), dead=DeadLetters(bus.client, NAMES),
                rules=rules or WebhookRules(), limits=jobs, line=line,
            )  # fmt: skip
            self.jobs.append(
                JobWorker(
                    means,
                    service.credits,
                    most=job_slots,
                    somebody_waits=lambda: service.waiting.occupied,
                )
            )
            await self.jobs[-1].start()
        await bus.confirmed()  # else a client may be faster than the server hears of the worker
        self.stack.push_async_callback(self._stop, service, discovery, control)
        return service

    async def start_at_length(self, slots: int, **more: Any) -> Service:
        """A worker that hears two seconds at once, and as jobs whatever comes; more is as for `start`."""
        few = {"decode": {"max_duration": 2.0}, "limits": {"max_duration": 2.0}}
        jobs = {"job_slots": slots, "jobs": Limits(longest_clip=2.0, max_duration=60.0)}
        given = {"options": few, "slots": slots, **jobs, **more}
        return await self.start(decode, limits, pretend, tidy, **given)

    async def _stop(self, service: Service, discovery: Discovery, control: CacheControl) -> None:
        await control.stop()
        await discovery.stop()
        for worker in self.jobs:
            await worker.stop_taking()
        self.jobs.clear()
        await service.stop(
            5 if service._bus.connected else 0
        )  # nobody hears what a dead one has in hand

    async def client(self, **options: Any) -> TranscribeClient:
        """A client on a connection of its own."""
        client = TranscribeClient(self.server.url, **{"model": "pretend", "timeout": 30, **options})
        return await self.stack.enter_async_context(client)


async def until(condition: Any, limit: float = 30.0) -> None:
    """Wait until `condition()` holds; fails when it does not within `limit` seconds."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - the condition belongs to another process or thread
            await asyncio.sleep(0.005)


async def hears(client: Client, within: float = 1.0) -> bool:
    """Whether a message to itself still arrives."""
    heard = asyncio.Event()

    async def cb(_: Msg) -> None:
        heard.set()

    try:
        await client.subscribe("are.you.there", cb=cb)
        await client.publish("are.you.there", b"")
        async with asyncio.timeout(within):
            await heard.wait()
    except (TimeoutError, Error):
        return False
    return True
