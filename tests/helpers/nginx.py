"""nginx with the site of `deploy/nginx`, on free ports, before a gateway."""

import asyncio
import contextlib
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx2
import trustme

from tests.helpers.docs import ROOT
from tests.helpers.house import until

SITE = ROOT / "deploy" / "nginx"
NAME = "stt.example.org"


@dataclass(frozen=True)
class Nginx:
    """Where it listens, and whom to trust."""

    port: int
    plain: int
    ca: trustme.CA

    @property
    def trust(self) -> ssl.SSLContext:
        """A caller's view of its certificate."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def caller(self) -> httpx2.AsyncClient:
        """An HTTPS client of it."""
        return httpx2.AsyncClient(
            base_url=f"https://localhost:{self.port}", verify=self.trust, timeout=20,
            trust_env=False, headers={"Host": NAME},
        )  # fmt: skip


def _free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def lay_out(folder: Path, ca: trustme.CA, *, gateway: int, changes: Mapping[str, str]) -> Nginx:
    """All of its files in `folder`, as on a server but for ports and paths; `changes` are texts and what stands in their place."""
    made = Nginx(_free(), _free(), ca)
    shutil.copytree(SITE / "snippets", folder / "snippets")
    certificate = ca.issue_cert(NAME, "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "site.pem"))
    (folder / "snippets" / "bus-gateway-certificate.conf").write_text(
        f"ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.pem;"
    )
    for path in (folder / "snippets").iterdir():
        text = path.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{gateway}")
        for old, new in changes.items():
            text = text.replace(old, new)
        path.write_text(text)
    site = (SITE / "bus-gateway.conf").read_text()
    site = re.sub(r"^ +listen \[::\].*\n", "", site, flags=re.MULTILINE)
    site = site.replace("listen 80;", f"listen 127.0.0.1:{made.plain};")
    site = site.replace("listen 443 ", f"listen 127.0.0.1:{made.port} ")
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;
        events {{ worker_connections 256; }}
        http {{
            access_log {folder}/access.log; client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
            scgi_temp_path {folder}/s;
            include {folder}/site.conf;
        }}
        """
    )
    return made


@contextlib.asynccontextmanager
async def nginx(
    folder: Path, *, gateway: int, changes: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Nginx]:
    """A running nginx; see `lay_out`."""
    made = lay_out(folder, trustme.CA(), gateway=gateway, changes=changes)
    process = await asyncio.create_subprocess_exec(
        "nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")
    )
    try:
        await until(lambda: process.returncode is not None or _listens(made.port))
        assert process.returncode is None, (folder / "error.log").read_text()
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
