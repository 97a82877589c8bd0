"""A nats-server and a valkey-server of our own."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nats
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from bus_worker import embedded
from bus_worker.embedded import NatsServer, nats_server, server_conf, valkey_server
from bus_worker.errors import SetupError
from tests.helpers.house import until


async def test_it_runs_with_jetstream_and_room_for_large_messages_and_leaves_nothing():
    async with nats_server(default_model="base") as server:
        nc = await nats.connect(server.url)
        assert nc.max_payload == 8 * 1024 * 1024
        assert (await nc.jetstream().account_info()).streams == 0
        await nc.close()
        folder, pid = server._folder, server.process.pid
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_it_comes_back_on_its_port():
    async with nats_server() as server:
        url = server.url
        await server.stop()
        await server.start()
        assert server.url == url
        await (await nats.connect(url)).close()


async def test_a_taken_port_is_one_sentence():
    async with nats_server() as server:
        with pytest.raises(SetupError, match=r"did not start; it said: .*address already in use"):
            async with nats_server(port=server.port):
                pass


async def test_a_token_is_asked_for():
    async with nats_server(token="sesame") as server:
        nc = await nats.connect(f"nats://sesame@127.0.0.1:{server.port}")
        assert nc.is_connected
        await nc.close()


@pytest.mark.parametrize("kind", ["nats_server", "valkey_server"])
async def test_it_dies_with_its_parent_however_that_dies(tmp_path: Path, kind: str):
    script = textwrap.dedent(
        f"""
        import asyncio
        from bus_worker.embedded import {kind}
        async def main():
            async with {kind}() as server:
                print(server.process.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: not _runs(pid))


def _started_with(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_the_cache_server_asks_for_its_password_keeps_nothing_on_disk_and_leaves_nothing():
    async with valkey_server() as server:
        async with Redis.from_url(server.url) as redis:
            told = await redis.config_get("maxmemory*", "save", "appendonly", "bind")
        assert told["maxmemory"] == str(256 * 1024 * 1024)
        assert told["maxmemory-policy"] == "allkeys-lru"
        assert (told["save"], told["appendonly"], told["bind"]) == ("", "no", "127.0.0.1")
        with pytest.raises(AuthenticationError):
            async with Redis(port=server.port) as stranger:
                await stranger.ping()
        assert server._password not in _started_with(server.process.pid)
        folder, pid = server._conf.parent, server.process.pid
        assert server._conf.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_cache_server_comes_back_on_its_port_with_its_password():
    async with valkey_server() as server:
        url = server.url
        server.process.kill()
        await server.process.wait()
        await server.start()
        async with Redis.from_url(url) as redis:
            assert await redis.ping()


async def test_the_cache_server_is_not_mistaken_for_another_that_has_its_port(
    monkeypatch: pytest.MonkeyPatch,
):
    async with valkey_server() as other:
        ports = iter([other.port, embedded._free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        monkeypatch.setattr(embedded, "TRIES", 2)
        async with valkey_server() as server, Redis.from_url(server.url) as redis:
            assert server.port != other.port
            assert await redis.ping()


async def test_a_cache_server_that_cannot_start_says_why():
    with pytest.raises(SetupError, match=r"valkey-server did not start; it said: .+"):
        async with valkey_server(memory="much"):
            pass


async def test_a_wrong_configuration_says_why(tmp_path: Path):
    with pytest.raises(SetupError, match="did not start"):
        await NatsServer("no { such: thing", tmp_path).start()


def test_the_configuration_names_the_default_model(tmp_path: Path):
    conf = server_conf(store=tmp_path, default_model="tiny.en", token='a"b', prefix="ears")
    assert 'mappings { "ears.v1.transcribe": "ears.v1.transcribe.tiny_en" }' in conf
    assert 'token: "a\\"b"' in conf


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child of its parent's death"
)
@pytest.mark.parametrize(("between", "status"), [("os.fork()", 1), ("0", 7)])
def test_a_child_whose_parent_is_gone_before_it_asks_leaves_at_once(between, status):
    # Asked for by one process and called in its grandchild, it sees another parent than it knows.
    script = textwrap.dedent(f"""
        import os
        from bus_worker.embedded import die_with_parent
        wish = die_with_parent()
        if os.fork() == 0:
            if {between}:
                os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
            wish()
            os._exit(7)
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
    """)
    ended = subprocess.run([sys.executable, "-c", script], timeout=20, check=False)
    assert ended.returncode == status
