"""`check_health` against a system that is well, one that limps, and one that is dead."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_worker.cache import open_cache
from bus_worker.embedded import ValkeyServer
from tests.helpers.checks import SCRIPTS, Checks, slack
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path / "home")


@contextlib.asynccontextmanager
async def stranger(*pieces: bytes) -> AsyncIterator[str]:
    """Whoever else may be at an address: says this, a piece each tenth of a second, and goes on living."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.1)
            if not pieces:
                await asyncio.sleep(60)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with asyncio.TaskGroup() as hands:
        served: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(
            lambda _, writer: served.append(hands.create_task(serve(writer))), "127.0.0.1", 0
        )
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for task in served:
                task.cancel()


def answer(body: bytes, head: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_a_system_that_is_well(workers: Workers, checks: Checks):
    await workers.start(slots=3)
    await workers.start(slots=2)
    async with gateway(workers.server.url) as door:
        said = await checks("check_health", "--url", door.url, "--workers", 2)
        assert said.status == 0, said.line
        assert said.line.startswith("OK: healthy: 2 workers, 0 of 5 slots taken | time=0.")
        assert said.figures["workers"] == "2;2:;1:;0"
        assert said.figures["taken"] == "0;;;0;5"
        assert list(checks.home.rglob("*.json")) == []  # nothing to keep, no place needed
        ready = await checks("check_health", "--url", f"{door.url}/ready")
        assert (ready.status, ready.line.partition(" |")[0]) == (0, "OK: ready")


async def test_a_system_that_limps(workers: Workers, valkey: ValkeyServer, checks: Checks):
    async with open_cache(enabled=True, url=valkey.url, prefix="stt") as cache:
        await workers.start(seconds=0, cache=cache)
        async with gateway(workers.server.url) as door, door.caller() as http:
            await valkey.stop()
            for _ in range(2):
                await http.post("/transcribe", files={"file": bytes(9)})
            said = await checks("check_health", "--url", door.url, "--workers", 2)
            assert said.status == 1, said.line
            assert "WARNING: degraded, the cache is away" in said.line
            assert "; 1 of 2 workers answer |" in said.line


async def test_a_system_that_is_dead(workers: Workers, checks: Checks):
    async with gateway(workers.server.url) as door:
        said = await checks("check_health", "--url", door.url)
        assert said.line.startswith("CRITICAL: unhealthy, no worker answers")
        ready = await checks("check_health", "--url", f"{door.url}/ready")
        assert "answers with status 503: no worker serves" in ready.line
        assert (said.status, ready.status) == (2, 2)
        await workers.server.stop()
        away = await checks("check_health", "--url", door.url)
        assert away.status == 2
        assert "the bus is away" in away.line
    gone = await checks("check_health", "--url", door.url)
    assert gone.status == 2
    assert "does not answer: [Errno 111] Connection refused" in gone.line


async def test_a_key_is_shown_from_a_file_or_the_environment(workers: Workers, checks: Checks):
    await workers.start()
    key = checks.home.parent / "key"
    key.write_text("hush\n")
    async with gateway(workers.server.url, api_key="hush") as door:
        without = await checks("check_health", "--url", door.url)
        assert (without.status, without.line) == (
            3, f"UNKNOWN: {door.url}/health wants another API key",
        )  # fmt: skip
        wrong = await checks("check_health", "--url", door.url, API_KEY="loud")
        assert wrong.status == 3
        for how in ((("--key-file", key), {}), ((), {"API_KEY": "hush"})):
            assert (await checks("check_health", "--url", door.url, *how[0], **how[1])).status == 0


@pytest.mark.parametrize(
    ("pieces", "status", "words"),
    [
        ((), 2, "no answer in 0.5 s"),
        ((b"HTTP/1.1 200 OK\r\n", *(b"X: y\r\n" for _ in range(20))), 2, "no answer in 0.5 s"),
        ((b"220 mail.example.org ESMTP\r\n",), 2, "BadStatusLine"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",), 2, "breaks off after 1 bytes"),
        ((answer(b"<h1>Bad Gateway</h1>", "502 Bad Gateway"),), 2, "answers with status 502"),
        ((answer(b"<h1>Hello</h1>"),), 3, "answers with status 200"),
        ((answer(b"[1]"),), 3, "answers with status 200"),
        ((answer(b"", "302 Found\r\nLocation: http://127.0.0.1:9/"),), 3, "status 302"),
        ((answer(b'{"status": "healthy"}', "503 x"),), 2, "CRITICAL: healthy"),
        ((answer(b'{"status": "odd"}'),), 2, "CRITICAL: odd"),
        ((answer(b'{"status": "ready", "workers": [{}]}'),), 3, "UNKNOWN: 'slots'"),
        (
            (answer(b'{"status": "not ready", "reasons": ["a | b\\nc"]}', "503 x"),),
            2,
            "CRITICAL: not ready, a / b c |",
        ),
    ],
)
async def test_whatever_answers_it_ends_with_a_status_and_one_line(checks, pieces, status, words):
    async with stranger(*pieces) as there:
        said = await checks("check_health", "--url", there, "--timeout", 0.5)
        assert (said.status, words in said.line) == (status, True), said.line


@pytest.mark.parametrize(
    "wrong", ["file:///etc/passwd", "ftp://x", "http://", "http://u:p@host", "x:y"]
)
async def test_an_address_that_is_none_is_refused(checks, wrong):
    said = await checks("check_health", "--url", wrong)
    assert said.status == 3
    assert said.line.startswith("UNKNOWN: argument --url: ")


async def test_slack_hears_of_changes_and_of_nothing_else(workers, checks, tmp_path):
    async with slack() as there, gateway(workers.server.url) as door:
        place = tmp_path / "slack_url"
        place.write_text(there.url + "\n")
        options = ("--url", door.url, "--slack-url-file", place, "--name", "speech <1>")

        assert [(await checks("check_health", *options)).status for _ in range(3)] == [2, 2, 2]
        (text,) = there.texts
        assert text == (
            ":rotating_light: *speech &lt;1&gt;*: CRITICAL (was OK): unhealthy, no worker answers"
        )

        reminded = await checks("check_health", *options, "--remind", 0)
        assert (reminded.status, len(there.texts)) == (2, 2)
        assert (await checks("check_health", *options, "--remind", 60)).status == 2
        assert len(there.texts) == 2

        await workers.start()
        there.status = 500
        untold = await checks("check_health", *options)
        assert untold.status == 0
        assert "Slack was not told: ValueError" in untold.line
        assert "secret" not in untold.line
        there.status = 200
        for _ in range(2):
            assert (await checks("check_health", *options, "--remind", 0)).status == 0
        assert len(there.texts) == 3
        assert "*: OK (was CRITICAL): healthy: 1 workers" in there.texts[-1]


async def test_slack_that_is_well_is_told_nothing_of_a_system_that_is(workers, checks):
    await workers.start()
    async with slack() as there, gateway(workers.server.url) as door:
        said = await checks("check_health", "--url", door.url, SLACK_WEBHOOK_URL=there.url)
        assert (said.status, there.texts) == (0, [])


async def test_slack_that_hangs_holds_nobody_up(checks):
    async with stranger() as there:
        said = await checks(
            "check_health", "--url", "127.0.0.1:9", "--timeout", 0.5,
            SLACK_WEBHOOK_URL=f"http://{there}/services/secret",
        )  # fmt: skip
        assert said.status == 2
        assert said.line.endswith("; Slack was not told: NoAnswer")


async def test_a_state_that_cannot_be_kept_or_read_hides_nothing(checks, tmp_path):
    async with slack() as there:
        state = tmp_path / "state"
        options = ("check_health", "--url", "127.0.0.1:9", "--state-file", state)
        state.write_text("[}")
        told = await checks(*options, SLACK_WEBHOOK_URL=there.url)
        assert (told.status, len(there.texts)) == (2, 1)
        assert json.loads(state.read_text())["told"] == "CRITICAL"
        state.unlink()
        (state / "below").mkdir(parents=True)
        again = await checks(*options, SLACK_WEBHOOK_URL=there.url)
        assert (again.status, len(there.texts)) == (2, 2)
        assert f"{state} cannot be written" in again.line


SENT = "on_server"
"""Not started but sent to a server, behind what it is asked for."""
PROGRAMS = sorted(
    path for path in SCRIPTS.iterdir() if path.is_file() and not path.suffix and path.name != SENT
)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_script_can_be_started_by_its_name(path):
    assert os.access(path, os.X_OK)
    assert path.read_text().partition("\n")[0] in {"#!/usr/bin/env python3", "#!/usr/bin/env bash"}
