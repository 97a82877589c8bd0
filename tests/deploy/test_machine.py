"""`deploy` on a whole machine: set up, upgraded under load, a broken release, back again; and the units' promises.

Ten minutes, most of them for the environments of three releases; one such machine at a time. `make soak ARGS="tests/deploy/test_machine.py"`
"""

import asyncio
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.helpers.house import until
from tests.helpers.machine import NEEDED, THERE, Machine, machine
from tests.helpers.tones import tone, wav_bytes

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason=f"needs root and {NEEDED}"
    ),
]


CLIP = wav_bytes(tone(2.0))


@contextlib.asynccontextmanager
async def load(key: str, callers: int) -> AsyncIterator[Counter[str]]:
    """Callers who ask all the time; what they were told."""
    told: Counter[str] = Counter()
    options = {"base_url": f"http://{THERE}", "headers": {"X-API-Key": key}, "timeout": 60}
    async with httpx2.AsyncClient(trust_env=False, **options) as http, asyncio.TaskGroup() as tasks:

        async def ask() -> None:
            while True:
                try:
                    answer = await http.post("/transcribe", files={"file": CLIP}, data={"cache": "false"})  # fmt: skip
                    told[str(answer.status_code)] += 1
                except httpx2.HTTPError as error:
                    told[repr(error)] += 1
                await asyncio.sleep(0.3)

        asking = [tasks.create_task(ask()) for _ in range(callers)]
        yield told
        for each in asking:
            each.cancel()


async def deployed(there: Machine, checkout: Path, *arguments: str) -> str:
    done = await asyncio.to_thread(there.deploy, checkout, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_life_of_a_server(tmp_path: Path):
    with machine(tmp_path) as there:
        first = there.checkout("first")
        assert "nothing was touched" in await deployed(there, first, "--dry-run")
        assert "bus-worker" not in there.run("ls /opt /etc /var/log")
        await deployed(there, first, "--workers", "2")
        secrets = there.run("sha256sum /etc/bus-worker/*")
        assert "nothing had to be done" in await deployed(there, first)
        before = there.run("readlink /opt/bus-worker/current")
        key = there.run("sed -n s/^API_KEY=//p /etc/bus-worker/gateway.env")
        async with load(key, 2) as told:
            second = there.checkout("second", "README.md", "# ", "# A newer ")
            await deployed(there, second)
            newer = there.run("readlink /opt/bus-worker/current")
            await a_broken_release_is_taken_back(there, newer)
            assert "runs again" in await deployed(there, second, "--rollback")
            assert there.run("readlink /opt/bus-worker/current") == before != newer
            await a_stopped_worker_finishes(there)
        assert set(told) == {"200"}
        assert there.run("sha256sum /etc/bus-worker/*") == secrets
        await a_worker_that_stands_still_is_started_anew(there)
        what_is_for_those_inside_is_closed(there)


async def a_broken_release_is_taken_back(there: Machine, serving: str) -> None:
    change = ("bus_worker/worker.py", "    began = time.monotonic()", "    raise RuntimeError")
    done = await asyncio.to_thread(there.deploy, there.checkout("broken", *change))
    assert (done.returncode, "serves again" in done.stderr) == (1, True), done.stderr
    assert there.run("readlink /opt/bus-worker/current") == serving


async def a_stopped_worker_finishes(there: Machine) -> None:
    await asyncio.to_thread(there.run, "systemctl stop bus-worker@2")
    assert "code=killed" not in there.run("journalctl -u bus-worker@2 -o cat")
    await asyncio.to_thread(there.run, "systemctl start bus-worker@2")


async def a_worker_that_stands_still_is_started_anew(there: Machine) -> None:
    unit = "bus-worker@1"
    there.run(f"kill -STOP {there.run(f'systemctl show -P MainPID {unit}')}")
    await until(lambda: there.run(f"systemctl show -P NRestarts {unit}") != "0", 90)
    assert "watchdog" in there.run(f"journalctl -u {unit} -o cat")
    await until(lambda: there.run(f"systemctl show -P StatusText {unit}") == "ready", 90)


def what_is_for_those_inside_is_closed(there: Machine) -> None:
    for port in (4222, 6379, 8000, 8222, 9101):
        with pytest.raises(httpx2.TransportError):
            httpx2.get(f"http://{THERE}:{port}/", timeout=1, trust_env=False)
    assert there.run("systemctl --failed --no-legend") == ""
