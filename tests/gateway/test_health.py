"""Health tells the truth, in time."""

import asyncio
import os
import signal
import time

from bus_worker import __version__
from bus_worker.cache import open_cache
from bus_worker.embedded import NatsServer, ValkeyServer
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers, until
from tests.helpers.processes import hold


async def test_health_names_every_worker(bus_server: NatsServer, workers: Workers):
    await workers.start(seconds=0)
    busy = await workers.start(seconds=3, slots=3, model="other")
    async with gateway(bus_server.url) as door, door.caller() as http:
        fresh = (await http.get("/health")).json()
        before = time.time()
        await http.post("/transcribe", files={"file": bytes(9)})
        slow = asyncio.create_task(http.post("/transcribe?model=other", files={"file": bytes(9)}))
        await until(lambda: busy.credits.busy)
        answer = await http.get("/health")
        slow.cancel()
    said = answer.json()
    first, second = said["workers"]
    assert (answer.status_code, said["status"], said["problems"]) == (200, "healthy", [])
    assert (said["bus"], said["cache"], said["models"]) == (
        "connected",
        "off",
        ["other", "pretend"],
    )
    assert (first["id"], first["model"], first["slots"], first["in_flight"]) == (
        "w1",
        "pretend",
        1,
        0,
    )
    assert (second["slots"], second["in_flight"], second["last_inference"]) == (3, 1, None)
    assert fresh["workers"][0]["last_inference"] is None
    assert before - 1 < first["last_inference"] < time.time() + 1


async def test_without_a_worker_nothing_is_ready(bus_server: NatsServer, workers: Workers):
    async with gateway(bus_server.url) as door, door.caller() as http:
        answer, ready = await http.get("/health"), await http.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "unavailable")
        assert "no worker" in ready.json()["error"]["message"]
        await workers.start(model="other")
        answer, ready = await http.get("/health"), await http.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert ready.status_code == 503
        await workers.start()
        answer, ready = await http.get("/health"), await http.get("/ready")
        assert (answer.json()["status"], ready.status_code) == ("healthy", 200)
        assert (await http.get("/")).json()["status"] == "ready"


async def test_health_without_a_bus_answers_within_a_second(
    bus_server: NatsServer, workers: Workers
):
    await workers.start()
    async with gateway(bus_server.url) as door, door.caller() as http:
        assert (await http.get("/ready")).status_code == 200
        pid = bus_server.process.pid
        for stop in (lambda: hold(pid), lambda: os.kill(pid, signal.SIGKILL)):
            stop()
            for path in ("/health", "/ready", "/", "/live", "/stats", "/metrics"):
                began = time.monotonic()
                answer = await http.get(path)
                assert time.monotonic() - began < 1.0, path
                assert answer.status_code == (503 if path in {"/health", "/ready"} else 200), path
        assert (await http.delete("/cache")).status_code == 503


async def test_a_cache_that_is_away_is_said(
    bus_server: NatsServer, workers: Workers, valkey: ValkeyServer
):
    async with open_cache(enabled=True, url=valkey.url, prefix="stt") as cache:
        await workers.start(seconds=0, cache=cache)
        async with gateway(bus_server.url) as door, door.caller() as http:
            await http.post("/transcribe", files={"file": bytes(9)})
            again = await http.post("/transcribe", files={"file": bytes(9)})
            assert again.json()["cache_hit"] is True
            assert (await http.get("/health")).json()["cache"] == "up"
            cleared = (await http.delete("/cache")).json()
            assert cleared["workers"] == {"w1": cleared["cleared"]}
            assert cleared["cleared"] >= 1
            assert (await http.get("/stats")).json()["workers"]["w1"]["cache"]["hits"] == 1
            await valkey.stop()
            await http.post("/transcribe", files={"file": bytes(9)})
            await http.post("/transcribe", files={"file": bytes(9)})
            said = (await http.get("/health")).json()
            assert (said["cache"], said["status"]) == ("down", "degraded")


async def test_metrics_count_by_route_and_never_by_what_strangers_write(
    bus_server: NatsServer, workers: Workers
):
    await workers.start(seconds=0)
    async with gateway(bus_server.url) as door, door.caller() as http:
        await http.post("/transcribe", files={"file": bytes(9)})
        await http.get("/strange/address")
        await http.request("BREW", "/live")
        said = (await http.get("/metrics")).text
    assert 'bus_gateway_requests_total{method="POST",route="/transcribe",status="200"} 1.0' in said
    assert 'bus_gateway_requests_total{method="GET",route="other",status="404"} 1.0' in said
    assert "bus_gateway_requests_in_hand 1.0" in said
    assert 'bus_gateway_request_duration_seconds_count{route="/transcribe"} 1.0' in said
    assert f'bus_gateway_build_info{{version="{__version__}"}} 1.0' in said
    assert "process_resident_memory_bytes" in said
    assert "strange" not in said
    assert "BREW" not in said


async def test_a_worker_that_is_not_ready_is_named_with_its_reasons(
    bus_server: NatsServer, workers: Workers
):
    why = {"ready": False, "reasons": ["a thread is stuck for 40 s"]}
    ill = await workers.start(figures=why)
    async with gateway(bus_server.url) as door, door.caller() as http:
        answer = await http.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert answer.json()["problems"] == ["worker w1 is not ready: a thread is stuck for 40 s"]
        await workers.start(figures={"ready": True, "reasons": []})
        answer = await http.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert [worker["ready"] for worker in answer.json()["workers"]] == [False, True]
    assert ill.credits.free == 1
