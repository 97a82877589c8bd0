"""The units for systemd: it takes them, thinks them safe, and they fit the settings."""

import re
import subprocess
from pathlib import Path

import pytest

from bus_worker.settings import Settings
from tests.helpers.docs import ROOT

UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""Keys that a systemd before 254 leaves out, and says so."""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_every_unit_and_every_example(tmp_path: Path):
    program = tmp_path / "nats-server"
    program.touch(mode=0o755)
    for unit in UNITS.glob("bus-*"):
        text = unit.read_text().replace(
            "/opt/bus-worker/current/venv/bin/nats-server", str(program)
        )
        (tmp_path / unit.name).write_text(text)
    for example in (UNITS / "examples").glob("*.conf"):
        drop_in = tmp_path / "bus-worker@.service.d" / example.name
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text(example.read_text())
    (tmp_path / "bus-worker@.service").rename(tmp_path / "bus-worker@1.service")
    said = run(
        "systemd-analyze",
        "verify",
        "--man=no",
        *filter(Path.is_file, sorted(tmp_path.glob("bus-*"))),
    )
    about_ours = [line for line in said.splitlines() if "bus-" in line]
    assert [line for line in about_ours if not any(f"'{key}'" in line for key in NEWER)] == []


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_thinks_it_safe(name: str):
    said = run("systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / name)
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(level) <= 2.5


@pytest.mark.parametrize("name", ["bus-worker@.service", "bus-gateway.service"])
def test_what_is_in_hand_may_be_finished_before_systemd_loses_patience(name: str):
    text = (UNITS / name).read_text()
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(patience) >= Settings().drain_timeout + 10
    assert "KillMode=mixed" in text


@pytest.mark.parametrize(("number", "port"), [("1", "9101"), ("12", "9112")])
def test_each_worker_has_a_port_of_its_own_and_a_wrong_setting_ends_with_78(
    tmp_path: Path, number: str, port: str
):
    (command,) = re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", (UNITS / "bus-worker@.service").read_text(), re.MULTILINE)  # fmt: skip
    command = command.replace("%i", number).replace("$$", "$")  # as systemd reads it
    program = tmp_path / "bus-worker"
    program.write_text('#!/bin/sh\n[ "$1" = run ] && echo "port $METRICS_PORT"; exit "$WRONG"\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def start(**variables: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", command], env=path | variables, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert start(WRONG="0") == (0, f"port {port}\n")
    assert start(WRONG="0", METRICS_PORT="7") == (0, "port 7\n")
    assert start(WRONG="1") == (78, "")
