"""The bus as `deploy/nats` sets it up: a real nats-server with those very files, and its users."""

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_worker.bus import Address
from bus_worker.embedded import NatsServer
from tests.helpers.watching import DEPLOY

__all__ = ["USERS", "Deployed", "deployed", "password"]

USERS = ("worker", "gateway", "publisher", "admin")
HERE = """
host: "127.0.0.1"
port: -1
http: "127.0.0.1:-1"
ports_file_dir: "{folder}"
"""
"""What a test changes: where it listens."""


def password(user: str) -> str:
    """A user's."""
    return f"{user}-5ecret"


@contextmanager
def _secrets(given: Mapping[str, str | None]) -> Iterator[None]:
    """The environment that the files ask for; `given` are variables of it (None: unset)."""
    with pytest.MonkeyPatch.context() as environment:
        for user in USERS:
            environment.setenv(f"NATS_{user.upper()}_PASSWORD", password(user))
        for name, value in given.items():
            if value is None:
                environment.delenv(name)
            else:
                environment.setenv(name, value)
        yield


class Deployed(NatsServer):
    """A nats-server with the folder `deploy/nats`."""

    def __init__(
        self,
        folder: Path,
        file: str = "nats-server.conf",
        more: str = "",
        given: Mapping[str, str | None] | None = None,
    ) -> None:
        """Args: more goes behind the file, which lies in a copy of the folder; given as for `_secrets`."""
        self._given = {"NATS_STORE_DIR": str(folder / "store"), **(given or {})}
        self.files = folder / "nats"
        shutil.copytree(DEPLOY / "nats", self.files, dirs_exist_ok=True)
        super().__init__(f"include ./nats/{file}\n{HERE.format(folder=folder)}\n{more}\n", folder)

    async def start(self) -> None:
        """Start it with its environment, which is nobody else's."""
        with _secrets(self._given):
            await super().start()

    def switch_on(self, line: str) -> None:
        """Take the `#` from before a line of `nats-server.conf`, as a person does."""
        conf = self.files / "nats-server.conf"
        text = conf.read_text()
        assert text.count(f"\n# {line}") == 1
        conf.write_text(text.replace(f"\n# {line}", f"\n{line}"))

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text(errors="replace")

    @property
    def violations(self) -> list[str]:
        """What its users tried and may not."""
        return [line for line in self.said.splitlines() if "Violation" in line]

    def who(self, user: str) -> dict[str, Any]:
        """What of an `Address`, and of what `gateway` takes, makes one a user."""
        return {"user": user, "password": password(user), "inbox_prefix": f"_INBOX.{user}"}

    def address(self, user: str) -> Address:
        """Where a user connects."""
        return Address((self.url,), **self.who(user))

    def variables(self, user: str) -> dict[str, str]:
        """The environment of a program that is this user."""
        return {
            "NATS_URL": self.url, "NATS_USER": user, "NATS_PASSWORD": password(user),
            "NATS_INBOX_PREFIX": f"_INBOX.{user}",
        }  # fmt: skip


@asynccontextmanager
async def deployed(
    folder: Path, file: str = "nats-server.conf", more: str = "", **given: str | None
) -> AsyncIterator[Deployed]:
    """That server, running; `given` as for `_secrets`."""
    server = Deployed(folder, file, more, given)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
