"""Who may come in, and how often at once."""

import asyncio

import pytest
from pydantic import SecretStr

from bus_worker.embedded import NatsServer
from gateway.keys import OPEN
from tests.helpers.gateway import gateway, request
from tests.helpers.house import Workers, until

KEYS = SecretStr("hush, other ")


async def test_a_key_is_asked_for_and_taken_in_either_header(
    bus_server: NatsServer, workers: Workers
):
    await workers.start(seconds=0)
    async with gateway(bus_server.url, api_key=KEYS) as door, door.caller() as http:
        for headers in (
            {"X-API-Key": "hush"},
            {"X-API-Key": "other"},
            {"Authorization": "Bearer hush"},
            {"Authorization": "bearer  other"},
        ):
            answer = await http.post("/transcribe", files={"file": bytes(9)}, headers=headers)
            assert answer.status_code == 200
        for headers in (
            {},
            {"X-API-Key": "hush, other"},
            {"X-API-Key": "hus"},
            {"X-API-Key": "HUSH"},
            {"X-API-Key": "hüsh".encode()},
            {"Authorization": "Basic hush"},
            {"Authorization": "Bearer"},
            {"Authorization": "hush"},
        ):
            answer = await http.post("/transcribe", files={"file": bytes(9)}, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "hush" not in answer.text


async def test_only_the_first_three_addresses_are_open(bus_server: NatsServer):
    async with gateway(bus_server.url, api_key=KEYS) as door, door.caller() as http:
        for path in sorted(OPEN):
            assert (await http.get(path)).status_code != 401
        for path in ("/health", "/stats", "/metrics", "/nowhere", "/v1/models"):
            assert (await http.get(path)).status_code == 401
        assert (await http.delete("/cache")).status_code == 401


async def test_a_large_body_without_a_key_is_not_read(bus_server: NatsServer):
    async with gateway(bus_server.url, api_key=KEYS) as door, door.line() as line:
        await line.say(request(b"", 1_000_000))
        assert (await line.refusal(0.9))[0] == 401


async def test_a_key_has_so_many_uploads_in_hand_and_no_more(
    bus_server: NatsServer, workers: Workers
):
    service = await workers.start(seconds=0.5, slots=2)
    async with (
        gateway(bus_server.url, api_key=KEYS, api_key_requests=2) as door,
        door.caller(headers={"X-API-Key": "hush"}) as http,
    ):
        post = [http.post("/transcribe", files={"file": bytes(9)}) for _ in range(2)]
        two = asyncio.gather(*post)
        await until(lambda: service.credits.busy == 2)
        third = await http.post("/transcribe", files={"file": bytes(9)})
        assert (third.status_code, third.json()["error"]["code"]) == (429, "rate_limited")
        assert int(third.headers["retry-after"]) >= 1
        assert third.headers["x-should-retry"] == "true"
        other = await http.post(
            "/transcribe", files={"file": bytes(9)}, headers={"X-API-Key": "other"}
        )
        assert [answer.status_code for answer in (*await two, other)] == [200] * 3
        again = await http.post("/transcribe", files={"file": bytes(9)})
        assert again.status_code == 200


async def test_an_open_gateway_has_one_cap_for_all(bus_server: NatsServer, workers: Workers):
    service = await workers.start(seconds=5)
    async with gateway(bus_server.url, api_key_requests=1) as door, door.caller() as http:
        async with door.line() as line:
            await line.say(request(bytes(9), kind="audio/wav"))
            await until(lambda: service.credits.busy)
            second = await http.post("/transcribe", files={"file": bytes(9)})
            assert second.status_code == 429
            assert "key" not in second.json()["error"]["message"]
        await until(lambda: not service.credits.busy)
        quick = await http.post(
            "/transcribe", files={"file": bytes(9)}, data={"stages": '{"pretend":{"seconds":0}}'}
        )
        assert quick.status_code == 200


@pytest.mark.parametrize("key", [None, KEYS])
async def test_pages_of_the_named_origins_may_call_with_a_key(bus_server: NatsServer, key):
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-api-key,x-stainless-os",
    }
    async with (
        gateway(bus_server.url, api_key=key, cors_origins=("https://app.example",)) as door,
        door.caller() as http,
    ):
        flight = await http.options("/transcribe", headers=asked)
        assert flight.status_code == 200
        assert flight.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-stainless-os" in flight.headers["access-control-allow-headers"]
        refused = await http.post("/transcribe", headers={"Origin": "https://app.example"})
        assert refused.status_code in {400, 401}
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
        other = await http.options(
            "/transcribe", headers={**asked, "Origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers
