"""What `/openapi.json` promises of /v1 is what it does."""

from pathlib import Path

import pytest

from bus_worker.settings import Settings
from gateway.app import create_app
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.stranger import broken_promises

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_field_that_is_taken_is_described_and_no_other():
    paths = create_app(Settings()).state.openapi["paths"]
    form = paths["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    schema = form["multipart/form-data"]["schema"]
    assert set(schema["properties"]) == {
        "chunking_strategy", "file", "keywords", "language", "languages", "model", "prompt",
        "response_format", "stream", "temperature", "timestamp_granularities",
    }  # fmt: skip
    assert schema["required"] == ["file", "model"]
    assert [name for name, one in schema["properties"].items() if "description" not in one] == []


@pytest.mark.timeout(300)
async def test_a_stranger_with_the_description_finds_no_broken_promise(
    house: Workers, tmp_path: Path
):
    # A form is all text, in which a wrong type cannot be told: no check that it is refused.
    more = ("--include-path-regex", "^/v1")
    async with gateway(house.server.url, api_key="hush", max_file_size=100_000) as door:
        assert await broken_promises(door, tmp_path, *more, checks=()) == ""
