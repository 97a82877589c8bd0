"""The page's files as the gateway hands them out, and what they say of the rest of the house."""

import re

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from bus_worker.settings import Settings
from gateway import page
from tests.helpers import docs
from tests.helpers.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
FOLDER = page.FOLDER
SCRIPTS = sorted(FOLDER.glob("*.js"))


def text(name: str) -> str:
    return (FOLDER / name).read_text()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("text/*", "text/html"),
        ("application/json;q=0.5, text/html;q=0.6", "text/html"),
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json, text/html", "application/json"),
        ("text/html;q=0.2, */*;q=0.3", "application/json"),
        ("text/html;q=nonsense", "application/json"),
        ("text/html;q=0", "application/json"),
    ],
)
async def test_people_get_the_page_and_programs_get_json(door: Gateway, accept: str, kind: str):
    async with door.caller() as caller:
        reply = await caller.get("/", headers={"Accept": accept or ""})
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].split(";")[0] == kind
        assert "Accept" in reply.headers["Vary"].split(", ")


async def test_the_page_says_the_limits_that_are_set(door: Gateway):
    async with door.caller() as caller:
        body = (await caller.get("/", headers={"Accept": "text/html"})).text
    assert 'data-max-bytes="2000000"' in body
    assert 'data-max-seconds="30"' in body
    assert 'data-max-job-bytes="6000000"' in body


async def test_the_page_as_it_lies_here_has_the_default_limits():
    defaults = Settings()
    assert f'data-max-bytes="{defaults.max_file_size}"' in text("index.html")
    assert f'data-max-seconds="{defaults.max_audio_duration:g}"' in text("index.html")
    assert f'data-max-job-bytes="{defaults.job_max_file_size}"' in text("index.html")
    assert f'data-max-job-seconds="{defaults.job_max_audio_duration:g}"' in text("index.html")


async def test_what_has_not_changed_is_not_sent_again(door: Gateway):
    async with door.caller(headers={"Accept": "text/html"}) as caller:
        for path in ("/", *(f"/page/{name}" for name in page.FILES)):
            first = await caller.get(path)
            tag = first.headers["ETag"]
            again = await caller.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
            assert (first.status_code, again.status_code) == (200, 304), path
            assert (first.headers["Cache-Control"], again.content) == ("no-cache", b"")
            other = await caller.get(path, headers={"If-None-Match": '"other"'})
            assert other.content == first.content


async def test_scripts_run_only_from_here_and_the_microphone_is_ours_alone(door: Gateway):
    async with door.caller(headers={"Accept": "text/html"}) as caller:
        headers = (await caller.get("/")).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)
    assert headers["Permissions-Policy"].startswith("microphone=(self)")


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2F__init__.py", "__init__.py"])
async def test_nothing_else_is_handed_out(door: Gateway, name: str):
    async with door.caller() as caller:
        assert (await caller.get(f"/page/{name}")).status_code == 404


async def test_the_page_names_no_other_place_and_carries_no_code_of_its_own():
    for path in FOLDER.iterdir():
        if path.suffix in {".html", ".css", ".js"}:
            assert not re.search(r"https?://|@import|url\(", path.read_text()), path.name
    assert not re.search(
        r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)", text("index.html")
    )


async def test_every_element_that_the_script_names_is_on_the_page():
    named = {
        name for path in SCRIPTS for name in re.findall(r"\$\(\"([\w-]+)\"\)", path.read_text())
    }
    assert {"record", "key"} <= named
    there = re.findall(r'\sid="([\w-]+)"', text("index.html"))
    assert len(there) == len(set(there))
    assert named <= set(there)


async def test_every_error_that_can_reach_the_page_has_a_sentence():
    codes = {kind.code for kind in docs.error_kinds() if kind.status and not is_setup(kind)}
    said = set(re.findall(r"^  (\w+): \[\"", text("words.js"), re.MULTILINE))
    assert codes - said == set()


def is_setup(kind: type) -> bool:
    return any(base.__name__ == "SetupError" for base in kind.__mro__)


async def test_every_language_that_whisper_knows_is_listed():
    (codes,) = re.findall(r"CODES = `([^`]*)`", text("words.js"))
    assert sorted(codes.split()) == sorted(_LANGUAGE_CODES)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
async def test_scripts_are_short_enough_to_be_read(path):
    assert len(path.read_text().splitlines()) <= 400
