"""A real Prometheus in a folder of its own, asked over its API."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from bus_worker.embedded import die_with_parent
from tests.helpers.watching import DEPLOY, installed


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    http: httpx2.AsyncClient

    async def ask(self, what: str, **params: str) -> Any:
        """The data of one answer of its API."""
        answer = await self.http.get(f"/api/v1/{what}", params=params)
        said = answer.json()
        assert said["status"] == "success", (params, said)
        return said["data"]

    async def values(self, query: str) -> list[float]:
        """What a query gives now; no numbers are nothing."""
        found = await self.ask("query", query=query)
        numbers = (float(each["value"][1]) for each in found["result"])
        return [number for number in numbers if number == number]  # noqa: PLR0124 - NaN is not

    async def until(self, query: str, limit: float = 40.0) -> None:
        """Wait until a query gives numbers."""
        async with asyncio.timeout(limit):
            while not await self.values(query):  # noqa: ASYNC110 - it looks once a second
                await asyncio.sleep(0.1)


def config(folder: Path, gateway: str) -> None:
    """Our configuration in that folder, for a gateway of the test's own, and in a hurry."""
    shutil.copytree(DEPLOY / "prometheus", folder, dirs_exist_ok=True)
    ours = yaml.safe_load((folder / "prometheus.yml").read_text())
    ours["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del ours["alerting"]
    for job in ours["scrape_configs"]:
        targets = job.pop("static_configs")
        if job["job_name"] == "bus-gateway":
            job["static_configs"] = [{**targets[0], "targets": [gateway]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(ours))


@contextlib.asynccontextmanager
async def prometheus(folder: Path) -> AsyncIterator[Prometheus]:
    """Runs what `config` has written there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        installed("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
        f"--web.listen-address={address}", cwd=folder, preexec_fn=die_with_parent(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            async with asyncio.timeout(30):
                while not await _is_ready(http):
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            yield Prometheus(http)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).status_code == 200
    except httpx2.TransportError:
        return False
