"""What systemd is told, heard on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus_worker.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """An address as systemd names it, and the socket that listens there."""
    name = str(tmp_path / "notify")
    shown = name if request.param == "path" else f"@bus-worker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(shown.replace("@", "\0", 1) if shown.startswith("@") else shown)
        sock.settimeout(2)
        yield shown, sock


def heard(sock: socket.socket, count: int) -> list[str]:
    return [sock.recv(4096).decode() for _ in range(count)]


def test_it_hears_of_a_whole_life(ear: tuple[str, socket.socket]):
    address, sock = ear
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
    assert systemd.every == 1.5
    systemd.ready()
    systemd.status("ready")
    systemd.status("ready")
    systemd.alive()
    systemd.stopping()
    assert heard(sock, 4) == ["READY=1", "STATUS=ready", "WATCHDOG=1", "STOPPING=1"]
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        sock.recv(1)


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)  # fmt: skip
def test_where_no_sign_of_life_is_wanted_none_is_given(ear, variables):
    address, sock = ear
    systemd = Systemd({"NOTIFY_SOCKET": address, **variables})
    systemd.alive()
    systemd.ready()
    assert heard(sock, 1) == ["READY=1"]


def test_without_systemd_nothing_happens():
    Systemd({}).ready()


def test_a_socket_that_is_gone_ends_nothing(tmp_path, caplog):
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "cannot be told READY" in caplog.text
