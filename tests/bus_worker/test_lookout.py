"""The small HTTP beside the work, asked as a prober would."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Gauge

from bus_worker.errors import BadSetting
from bus_worker.lookout import AT_ONCE, Lookout


class House:
    """A lookout whose reasons the test sets."""

    def __init__(self) -> None:
        self.not_live: list[str] = []
        self.not_ready: list[str] = []
        registry = CollectorRegistry()
        Gauge("bus_worker_test", "For this test.", registry=registry).set(7)
        self.lookout = Lookout(
            registry, not_live=lambda: self.not_live, not_ready=lambda: self.not_ready
        )
        self.port = self.lookout.open("127.0.0.1", 0)

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - ours
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def house() -> Iterator[House]:
    opened = House()
    yield opened
    opened.lookout.close()


def test_it_says_well_and_otherwise_why_not(house: House):
    assert house.ask("/ready") == (200, b'{"status": "ready", "reasons": []}\n')
    house.not_ready = ["the bus is away"]
    status, body = house.ask("/ready")
    assert (status, json.loads(body)) == (
        503,
        {"status": "not ready", "reasons": ["the bus is away"]},
    )
    assert house.ask("/live")[0] == 200
    house.not_live = ["the event loop stands still for 11 s"]
    assert house.ask("/live")[0] == 503


def test_metrics_are_those_of_the_registry_alone(house: House):
    status, body = house.ask("/metrics")
    assert status == 200
    assert b"bus_worker_test 7.0" in body
    assert b"python_info" not in body


def test_it_knows_three_addresses_and_takes_nothing(house: House):
    assert house.ask("/etc/passwd")[0] == 404
    assert house.ask("/metrics", "POST")[0] == 405
    assert house.ask("/ready", "HEAD") == (200, b"")


async def test_it_answers_while_the_event_loop_is_blocked(house: House):
    with ThreadPoolExecutor(1) as pool:
        # The event loop stands still until the answer is there.
        assert pool.submit(house.ask, "/live").result(timeout=5)[0] == 200


def test_a_port_that_is_taken_stops_the_start_with_a_sentence(house: House):
    with pytest.raises(BadSetting, match=f"METRICS_PORT={house.port}: cannot listen at") as caught:
        Lookout(CollectorRegistry(), not_live=list, not_ready=list).open("127.0.0.1", house.port)
    assert caught.value.details["variable"] == "METRICS_PORT"
    with pytest.raises(BadSetting, match=r"192\.0\.2\.1"):
        Lookout(CollectorRegistry(), not_live=list, not_ready=list).open("192.0.2.1", 0)


def test_callers_who_say_nothing_do_not_fill_the_house_for_ever(house: House, monkeypatch):
    monkeypatch.setattr("bus_worker.lookout._Handler.timeout", 0.3)
    silent = [
        socket.create_connection(("127.0.0.1", house.port), timeout=5) for _ in range(3 * AT_ONCE)
    ]
    assert all(sock.recv(1) == b"" for sock in silent)  # hung up on, at once or after a while
    for sock in silent:
        sock.close()
    assert house.ask("/live")[0] == 200
