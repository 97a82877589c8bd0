"""A shared library that is away is named, and how to get it on this system."""

import sys
from pathlib import Path

import pytest

from bus_worker import embedded
from bus_worker.native import advice, lacking
from tests.helpers.shell import NOBODY, PRETEND, shell

AWAY = "libstdc++.so.6: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("said", "library"),
    [
        (AWAY, "libstdc++.so.6"),
        (f"numpy speaks at length first.\nOriginal error was: {AWAY}", "libstdc++.so.6"),
        ("libz.so.1: cannot open shared object file: No such file or directory", "libz.so.1"),
        ("cannot import name 'x' from 'y'", None),
    ],
)
def test_the_library_that_an_import_lacked_is_told(said: str, library: str | None):
    assert lacking(ImportError(said)) == library


def test_the_package_that_brings_it_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus_worker.native.on_nixos", lambda: False)
    assert "apt install libstdc++6" in advice("libstdc++.so.6")
    assert advice("libodd.so.3") == "install the system package that has libodd.so.3"


def test_on_nixos_the_shell_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "base_prefix", "/nix/store/0123-python3-3.11.9")
    assert "`nix-shell`" in advice("libstdc++.so.6")


async def test_doctor_and_the_commands_say_it_in_one_sentence(tmp_path: Path):
    for name in ("numpy", "av"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError({AWAY!r})\n")
    here = {"cwd": tmp_path, "PYTHONPATH": str(tmp_path), "NATS_URL": NOBODY, **PRETEND}
    ended = await shell("doctor", **here)
    assert ended.status == 1
    worker = next(line for line in ended.out.splitlines() if "✗ worker" in line)
    assert "this system has no libstdc++.so.6, which numpy, " in worker
    assert advice("libstdc++.so.6") in worker
    ended = await shell("plugins", **here)
    assert ended.status == 1
    assert ended.sentence == (f"this system has no libstdc++.so.6: {advice('libstdc++.so.6')}")


def test_on_nixos_the_cache_server_of_the_path_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(embedded, "on_nixos", lambda: False)
    own = embedded.valkey_server_binary()
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.valkey_server_binary() == own
    monkeypatch.setattr(embedded, "on_nixos", lambda: True)
    assert embedded.valkey_server_binary() == server
