"""The bus encrypted: certificates by the page's own recipe, the include switched on, nothing told in the open."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bus_worker.bus import connect
from bus_worker.errors import Unavailable
from tests.helpers.deployed import Deployed, password
from tests.helpers.shell import PRETEND, shell
from tests.helpers.watching import DEPLOY

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's recipe makes."""
    (recipe,) = re.findall(
        r"```sh\n(name=.*?)```", (DEPLOY / "nats" / "README.md").read_text(), re.DOTALL
    )
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["bash", "-euc", f"name=bus.example\n{recipe}"], cwd=folder, check=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(
    certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployed]:
    server = Deployed(
        tmp_path_factory.mktemp("nats"),
        given={
            "NATS_TLS_CERT": str(certificates / "server.pem"),
            "NATS_TLS_KEY": str(certificates / "server-key.pem"),
        },
    )
    server.switch_on("include ./tls.conf")
    await server.start()
    yield server
    await server.stop()


async def test_who_knows_the_authority_comes_in(bus: Deployed, certificates: Path, tmp_path: Path):
    async with connect(replace(bus.address("gateway"), ca=certificates / "ca.pem")) as here:
        assert await here.confirmed()
    for known in (
        {"NATS_CA": str(certificates / "ca.pem")},
        # As one that the machine knows, so that the name in the URL is enough.
        {
            "SSL_CERT_FILE": str(certificates / "ca.pem"),
            "NATS_URL": bus.url.replace("nats:", "tls:"),
        },
    ):
        who = {**PRETEND, **bus.variables("admin"), **known}
        ended = await shell("setup", "--bus-only", cwd=tmp_path, **who)
        assert (ended.status, "stream STT_JOBS: keeps" in ended.out) == (0, True)


async def test_who_does_not_know_it_gives_no_password_away(bus: Deployed):
    with pytest.raises(Unavailable, match="certificate verify failed"):
        async with connect(bus.address("gateway"), 3):
            pass


async def test_a_password_in_the_open_is_refused(bus: Deployed):
    reader, writer = await asyncio.open_connection("127.0.0.1", bus.port)
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        assert info["tls_required"]
        said = {"user": "gateway", "pass": password("gateway"), "verbose": False}
        writer.write(f"CONNECT {json.dumps(said)}\r\nPING\r\n".encode())
        async with asyncio.timeout(10):
            heard = await reader.read()
    finally:
        writer.close()
    assert b"PONG" not in heard
