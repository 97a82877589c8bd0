"""Three nats-servers that are one bus, each with `deploy/nats/cluster.conf`; any may be killed and come back."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bus_worker.bus import Address, connect
from bus_worker.errors import SetupError, Unavailable
from bus_worker.jetstream import JetStream
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.deployed import Deployed

__all__ = ["Cluster", "cluster"]

NAMES = Subjects()
ELECTED_WITHIN = 40.0


class Cluster:
    """The three."""

    def __init__(self, servers: list[Deployed]) -> None:
        self.servers = servers

    def address(self, user: str) -> Address:
        """Where a user connects: to whichever is there."""
        there = tuple(server.url for server in self.servers)
        return Address(there, **self.servers[0].who(user))

    async def set_up(self) -> None:
        """What an admin does with it once it has begun, which takes a few seconds."""
        async with connect(self.address("admin")) as admin, asyncio.timeout(ELECTED_WITHIN):
            while True:
                try:
                    await make_streams(admin.client, NAMES, "base", replicas=3)
                except SetupError:
                    await asyncio.sleep(0.2)
                else:
                    break
            await make_streams(admin.client, NAMES, "base")  # without a word of replicas they stay
            kept = (await admin.client.jetstream().stream_info("STT_JOBS")).config.num_replicas
        assert kept == 3

    async def leader(self, stream: str) -> Deployed:
        """The server that leads a stream."""
        async with connect(self.address("admin")) as admin:
            found = (await admin.client.jetstream().stream_info(stream)).cluster
        assert found is not None
        assert found.leader is not None
        return self.servers[int(found.leader.removeprefix("speech-"))]

    async def whole(self) -> None:
        """Wait until all three keep every stream, and none is behind."""
        async with connect(self.address("admin")) as admin, asyncio.timeout(ELECTED_WITHIN):
            while not await self._is_whole(JetStream(admin.client)):  # noqa: ASYNC110 - servers tell
                await asyncio.sleep(0.2)

    async def _is_whole(self, js: JetStream) -> bool:
        try:
            streams = (await js.api("STREAM.LIST")).get("streams") or ()
        except Unavailable:  # nobody leads
            return False
        peers = [(s["cluster"].get("leader"), s["cluster"].get("replicas") or ()) for s in streams]
        return bool(peers) and all(
            leader and len(others) == 2 and all(one["current"] for one in others)
            for leader, others in peers
        )

    async def kill(self, server: Deployed) -> None:
        """SIGKILL."""
        assert server.process is not None
        server.process.kill()
        await server.process.wait()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that runs, without streams."""
    ports = [_free_port() for _ in range(3)]
    routes = json.dumps([f"nats://route:r0ute@127.0.0.1:{port}" for port in ports])
    servers: list[Deployed] = []
    async with AsyncExitStack() as stack:
        for number, port in enumerate(ports):
            place = folder / str(number)
            place.mkdir()
            environment = {
                "NATS_SERVER_NAME": f"speech-{number}", "NATS_CLUSTER_LISTEN": f"127.0.0.1:{port}",
                "NATS_ROUTE_PASSWORD": "r0ute", "NATS_ROUTES": routes,
            }  # fmt: skip
            servers.append(Deployed(place, "cluster.conf", given=environment))
            stack.push_async_callback(servers[-1].stop)
            await servers[-1].start()
        yield Cluster(servers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
