"""A worker's or a gateway's health as an exit status, from real ones and from strangers."""

import contextlib
import itertools
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bus_worker.cli import health, main
from bus_worker.embedded import NatsServer
from bus_worker.lookout import Lookout
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.shell import shell


class House:
    """A worker's lookout whose reasons the test sets."""

    def __init__(self) -> None:
        self.not_live: list[str] = []
        self.not_ready: list[str] = []
        self.lookout = Lookout(
            CollectorRegistry(), not_live=lambda: self.not_live, not_ready=lambda: self.not_ready
        )
        self.port = str(self.lookout.open("127.0.0.1", 0))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[House]:
    monkeypatch.chdir(tmp_path)
    opened = House()
    monkeypatch.setenv("METRICS_PORT", opened.port)
    yield opened
    opened.lookout.close()


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A port at which the test answers as it likes."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield door


def answering(door: socket.socket, pieces: Iterable[bytes]) -> str:
    """Answer one call with these, then hang up; the URL."""

    def answer() -> None:
        line, _ = door.accept()
        with line, contextlib.suppress(ConnectionError):  # it may have heard enough
            line.recv(4096)
            for piece in pieces:
                line.sendall(piece)

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{door.getsockname()[1]}"


def test_a_worker_that_is_well_is_0_and_one_that_is_not_is_1_with_its_reasons(house: House, capsys):
    assert (main(["health"]), capsys.readouterr().out) == (0, "ready\n")
    house.not_ready = ["the bus is away", "a subscription has died"]
    assert main(["health"]) == 1
    said = capsys.readouterr()
    sentence = "not ready: the bus is away; a subscription has died\n"
    assert (said.out, said.err) == (
        "",
        f"bus-worker: 127.0.0.1:{house.port}/ready: {sentence}",
    )


def test_a_worker_that_cannot_serve_may_still_be_alive(house: House, capsys):
    house.not_ready = ["the bus is away"]
    assert (main(["health", "--live"]), capsys.readouterr().out) == (0, "alive\n")
    house.not_live = ["the event loop stands still for 11 s"]
    assert main(["health", "--live"]) == 1
    assert "not alive: the event loop stands still for 11 s" in capsys.readouterr().err


def test_a_path_in_the_url_wins_over_the_option(house: House, capsys):
    house.not_ready = ["the bus is away"]
    url = f"http://127.0.0.1:{house.port}"
    assert [main(["health", f"{url}/live"]), main(["health", f"{url}/", "--live"])] == [0, 0]
    assert [main(["health", f"{url}/ready", "--live"]), main(["health", url])] == [1, 1]
    assert main(["health", f"{url}/elsewhere"]) == 1
    assert "/elsewhere: not found" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])  # noqa: S104 - as a container sets it
def test_a_worker_that_listens_everywhere_is_asked_here(host, house: House, monkeypatch):
    monkeypatch.setenv("METRICS_HOST", host)
    assert main(["health"]) == 0


@pytest.mark.parametrize("port", ["", "0"])
def test_without_a_port_it_says_which_variable_is_missing(port, house: House, monkeypatch, capsys):
    monkeypatch.setenv("METRICS_PORT", port)
    assert main(["health"]) == 1
    assert "METRICS_PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/ready",
        "127.0.0.1:8000",
        "http://",
        "http://[::1",
        "http://a:x",
        "http://a..b",
        "",
    ],
)
def test_what_is_no_address_is_refused(url, capsys):
    assert main(["health", url or " "]) == 1
    assert "is not an address such as http://" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ((), "what answers does not speak HTTP"),
        ((b"-ERR unknown command\r\n",), "what answers does not speak HTTP"),
        ((b"HTTP/1.1 200 OK\r\n\r\n<html>",), None),
        ((b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",), "HTTP status 302"),
        ((b"HTTP/1.1 500 \r\n\r\n", b'{"reasons": 3}'), "HTTP status 500"),
    ],
)
def test_strangers_are_taken_at_their_status(stranger, pieces, sentence, capsys):
    status = main(["health", answering(stranger, pieces)])
    assert status == (0 if sentence is None else 1)
    assert (sentence or "HTTP status 200") in "".join(capsys.readouterr())


def slowly() -> Iterator[bytes]:
    while True:
        time.sleep(0.05)
        yield b"x"


def test_who_never_has_done_is_not_well(stranger, monkeypatch, capsys):
    monkeypatch.setattr(health, "LIMIT", 0.3)
    assert main(["health", answering(stranger, slowly())]) == 1
    assert "no answer in time" in capsys.readouterr().err
    assert main(["health", f"http://127.0.0.1:{stranger.getsockname()[1]}"]) == 1  # nobody answers
    assert "no answer in time" in capsys.readouterr().err


def test_of_an_answer_without_end_it_reads_a_little(stranger, capsys):
    assert main(["health", answering(stranger, itertools.repeat(b"x" * 999))]) == 1
    assert "does not speak HTTP" in capsys.readouterr().err


async def test_a_gateway_is_healthy_while_a_worker_serves(
    workers: Workers, bus_server: NatsServer, tmp_path: Path
):
    async with gateway(bus_server.url) as door:
        alone = await shell("health", door.url, cwd=tmp_path)
        assert alone.status == 1
        assert alone.sentence == f"127.0.0.1:{door.port}/ready: no worker serves"
        await workers.start(seconds=0)
        served = await shell("health", f"{door.url}/ready", cwd=tmp_path)
        assert (served.status, served.out, served.err) == (0, "ready\n", "")


async def test_it_takes_no_settings_with_it_where_it_needs_none(tmp_path: Path):
    """It runs every few seconds beside work that needs the processor."""
    code = (
        "import sys; from bus_worker.cli import main; status = main(['health', 'http://127.0.0.1:1']);"
        "print(status, sorted({'pydantic', 'asyncio', 'ssl', 'nats', 'dotenv'} & {*sys.modules}))"
    )
    ended = await shell("-c", code, cwd=tmp_path, program=(sys.executable,))
    assert ended.out == "1 []\n"
