"""A stranger who knows nothing but `/openapi.json`, and tries everything in it: schemathesis."""

import asyncio
import sys
from pathlib import Path

from tests.helpers.gateway import Gateway

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance", "unsupported_method",
)  # fmt: skip


async def broken_promises(door: Gateway, folder: Path, *more: str, checks: tuple[str, ...]) -> str:
    """What the stranger complains of; nothing, if every promise is kept.

    Args:
        folder: where it may write.
        more: which addresses.
        checks: what is looked for besides `CHECKS`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{door.url}/openapi.json",
        "--checks", ",".join((*CHECKS, *checks)), "--header", "X-API-Key: hush", "--workers", "4",
        "--request-timeout", "10", "--generation-database", "none", "--no-color", "--seed", "1",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "3", *more,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode()[-6000:] if process.returncode else ""
