"""The site of nginx before the gateway: real TLS, real uploads, and what nginx itself refuses."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from bus_worker.embedded import NatsServer
from bus_worker.service import Service
from bus_worker.settings import Settings
from gateway.uploads import BESIDES
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.nginx import NAME, Nginx, nginx

LIMIT = 100_000


@dataclass
class House:
    """A gateway behind nginx, and its worker."""

    door: Nginx
    http: httpx2.AsyncClient
    service: Service
    folder: Path


@pytest.fixture
async def house(bus_server: NatsServer, workers: Workers, tmp_path: Path) -> AsyncIterator[House]:
    """Both take clips of `LIMIT` bytes."""
    service = await workers.start(slots=2)
    smaller = {"client_max_body_size 10747904": f"client_max_body_size {LIMIT + BESIDES}"}
    async with (
        gateway(bus_server.url, max_file_size=LIMIT) as behind,
        nginx(tmp_path, gateway=behind.port, changes=smaller) as door,
        door.caller() as http,
    ):
        yield House(door, http, service, tmp_path)


def fault(answer: httpx2.Response) -> dict:
    assert answer.headers["content-type"] == "application/json"
    return answer.json()["error"]


def test_the_limits_are_those_of_the_settings():
    text = (Path(__file__).parents[2] / "deploy/nginx/snippets/bus-gateway-server.conf").read_text()
    settings = Settings()
    assert f"client_max_body_size {settings.max_file_size + BESIDES};" in text
    assert text.count(f"client_max_body_size {settings.job_max_file_size + BESIDES};") == 2


async def test_an_upload_at_the_limit_passes_and_one_byte_more_is_refused(house: House):
    kind = {"Content-Type": "audio/wav"}
    passed = await house.http.post("/transcribe", content=bytes(LIMIT), headers=kind)
    assert (passed.status_code, passed.json()["text"]) == (200, f"{LIMIT} bytes")
    refused = await house.http.post("/transcribe", content=bytes(LIMIT + 1), headers=kind)
    assert (refused.status_code, fault(refused)["code"]) == (413, "too_large")
    assert "POST /jobs" in fault(refused)["message"]  # these are the gateway's own words


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_nginx_refuses_is_told_as_the_gateway_would(house: House, chunked: bool):  # noqa: FBT001
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(10_000)

    refused = await house.http.post(
        "/transcribe",
        content=pieces() if chunked else bytes(400_000),
        headers={"Content-Type": "audio/wav", "X-Request-Id": "mine"},
    )
    assert (refused.status_code, refused.headers["x-request-id"]) == (413, "mine")
    error = fault(refused)
    assert error["code"] == "too_large"
    assert set(error) == {"code", "message", "retry", "details", "request_id"}
    if not chunked:
        assert (error["message"], error["request_id"]) == ("the upload is larger than is taken here", "mine")  # fmt: skip


async def test_the_request_id_is_passed_on_or_made(house: House):
    said = await house.http.get("/live", headers={"X-Request-Id": "mine"})
    assert said.headers.get_list("x-request-id") == ["mine"]
    made = await house.http.get("/live", headers={"X-Request-Id": 'not "one"'})
    assert len(made.headers["x-request-id"]) == 32


async def test_events_come_one_by_one(house: House):
    stages = '{"pretend": {"seconds": 1.5, "segments": 3}}'
    async with house.http.stream(
        "POST", "/transcribe?stream=true", files={"file": bytes(100)}, data={"stages": stages}
    ) as answer:
        lines = answer.aiter_lines()
        while not (line := await anext(lines)).startswith("data: "):
            pass
        assert json.loads(line[6:])["text"] == " part 0"
        assert house.service.credits.busy  # the others are not even heard yet
        assert sum([line.startswith("event: ") async for line in lines]) == 3


async def test_what_is_for_those_inside_is_not_seen_from_outside(house: House):
    for path in ("/metrics", "/stats"):
        refused = await house.http.get(path)
        assert (refused.status_code, fault(refused)["code"]) == (404, "not_found")


async def test_it_is_told_in_plain_http_where_https_is(house: House):
    async with httpx2.AsyncClient(trust_env=False) as http:
        told = await http.get(
            f"http://127.0.0.1:{house.door.plain}/v1/models", headers={"Host": NAME}
        )
    assert (told.status_code, told.headers["location"]) == (308, f"https://{NAME}/v1/models")


async def test_who_comes_too_often_is_told_when_to_come_again(tmp_path: Path):
    changes = {"burst=50": "burst=1"}
    codes = {"/transcribe": "rate_limited", "/v1/audio/transcriptions": "rate_limit_exceeded"}
    async with (
        gateway("nats://127.0.0.1:9") as behind,
        nginx(tmp_path, gateway=behind.port, changes=changes) as door,
        door.caller() as http,
    ):
        assert (await http.post("/transcribe")).status_code == 400  # the first ones are let in
        for path, code in codes.items():
            answers = await asyncio.gather(*(http.post(path) for _ in range(6)))
            (refused, *_) = (answer for answer in answers if answer.status_code == 429)
            assert fault(refused)["code"] == code
            assert refused.headers["retry-after"] == "1"


async def test_a_gateway_that_is_away_or_silent_is_told_of(tmp_path: Path):
    changes = {"send_timeout 30s": "proxy_read_timeout 200ms"}
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes callers, and says nothing
        port = silent.getsockname()[1]
        async with nginx(tmp_path, gateway=port, changes=changes) as door, door.caller() as http:
            late = await http.get("/ready")
            silent.close()
            away = await http.get("/v1/models")
    assert (late.status_code, fault(late)["code"]) == (504, "deadline_exceeded")
    assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    assert set(fault(away)) == {"message", "type", "param", "code"}
