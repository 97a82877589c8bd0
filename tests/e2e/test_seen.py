"""A worker process, seen from outside while it starts, works, drains and cannot start."""

import asyncio
import json
import signal
import socket
import urllib.error
import urllib.request

from nats.aio.client import Client

from bus_worker.client import TranscribeClient
from bus_worker.health import DRAINING
from tests.helpers.processes import Processes, WorkerProcess, ask_all, until_busy


async def ask(worker: WorkerProcess, path: str) -> tuple[int, str]:
    """What the worker's small HTTP answers."""
    url = f"http://127.0.0.1:{worker.event('ready')['metrics_port']}{path}"

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def test_a_worker_is_seen_at_work_and_while_it_drains(
    processes: Processes, nc: Client, caller: TranscribeClient
):
    (worker,) = await processes.start(METRICS_PORT="0", PRETEND__SECONDS="1")
    (info,) = await ask_all(nc, "INFO")
    assert info["metadata"]["metrics_port"] == str(worker.event("ready")["metrics_port"])
    assert (await ask(worker, "/ready"))[0] == (await ask(worker, "/live"))[0] == 200
    asking = asyncio.create_task(caller.transcribe(b"12"))
    await until_busy(nc)
    status, said = await ask(worker, "/metrics")
    assert status == 200
    assert 'bus_worker_slots{state="taken"} 1.0' in said
    assert "bus_worker_ready 1.0" in said
    (stats,) = await ask_all(nc, "STATS")
    assert stats["endpoints"][0]["data"]["ready"] is True
    worker.signal(signal.SIGTERM)
    await worker.said("draining")
    status, said = await ask(worker, "/ready")
    assert (status, json.loads(said)["reasons"]) == (503, [DRAINING])
    assert (await ask(worker, "/live"))[0] == 200
    assert (await asking).text == "2 bytes"
    assert await worker.left() == 0
    states = [line["event"] for line in worker.lines if line["event"] in {"model_loaded", "ready", "draining", "stopped"}]  # fmt: skip
    assert states == ["model_loaded", "ready", "draining", "stopped"]


async def test_a_metrics_port_that_is_taken_stops_the_start(processes: Processes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = await processes.spawn(METRICS_PORT=str(port))
        assert await worker.left() != 0
    assert worker.lines == []
    (sentence,) = worker.sentences
    assert sentence.startswith(f"bus-worker: METRICS_PORT={port}: cannot listen at")
