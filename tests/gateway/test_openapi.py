"""What the description promises is what the gateway does."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from bus_worker.errors import SetupError
from bus_worker.settings import Settings
from gateway.app import create_app
from tests.helpers.docs import error_kinds
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers
from tests.helpers.stranger import broken_promises

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER_SENT = {"cancelled", "not_found", "method_not_allowed"}
"""Nobody is there to read it; or it is no answer of any address that is described."""


def described(app) -> dict:
    return app.state.openapi["paths"]


async def test_every_address_is_described_and_no_other():
    app = create_app(Settings())
    routed = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.include_in_schema  # not what the page is made of
        for method in route.methods - {"HEAD"}
    }
    assert routed == {(path, method) for path, what in described(app).items() for method in what}


async def test_every_error_that_a_caller_may_see_is_described():
    told = set(re.findall(r"`([a-z_]+)`: ", str(described(create_app(Settings())))))
    kinds = [kind for kind in error_kinds() if not issubclass(kind, SetupError)]
    assert told & {kind.code for kind in kinds} == {kind.code for kind in kinds} - NEVER_SENT


async def test_the_page_for_people_loads_nothing_from_anywhere(door: Gateway):
    async with door.caller() as http:
        page = await http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"https?:|//|src=|href=|url\(|@import|<script", page.text)
    for word in ("/transcribe", "word_timestamps", "deadline_exceeded", "file (needed)"):
        assert word in page.text


@pytest.mark.timeout(300)
async def test_a_stranger_with_the_description_finds_no_broken_promise(
    house: Workers, tmp_path: Path
):
    async with gateway(house.server.url, api_key="hush", max_file_size=100_000) as door:
        # What is under /v1 has texts of its own, and a test of its own.
        more = ("--exclude-path-regex", "^/v1")
        checks = ("negative_data_rejection",)
        assert await broken_promises(door, tmp_path, *more, checks=checks) == ""
