"""A long recording in a real Chromium: sent as a job, watched, cut off, loaded anew, cancelled."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser

from bus_worker.embedded import nats_server
from tests.helpers.browser import Tab, chromium, tab
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers, until
from tests.helpers.tones import tone, wav_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = wav_bytes(tone(12.0))
LARGE = wav_bytes(tone(20.0))


@pytest.fixture(scope="module")
def beep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone would hear."""
    path = tmp_path_factory.mktemp("spoken") / "tone.wav"
    path.write_bytes(LONG)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(beep: Path) -> AsyncIterator[Browser]:
    """One browser for all these tests."""
    async with chromium(beep) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Workers]:
    """A worker that hears two seconds at once, and takes a moment for them."""
    async with nats_server(default_model="pretend") as server, Workers(server) as house:
        await house.start_at_length(1, seconds=0.3)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(house: Workers) -> AsyncIterator[Gateway]:
    """A gateway on that bus."""
    async with gateway(
        house.server.url, max_file_size=500_000, job_max_file_size=1_000_000
    ) as started:
        yield started


async def progress(opened: Tab) -> float:
    return float(await opened.page.evaluate("document.getElementById('progress').value"))


async def part_heard(opened: Tab) -> None:
    """Wait until some of it is written, and not all."""
    await opened.page.wait_for_selector("#segments li >> nth=1")
    await opened.page.wait_for_selector("#percent:text('% heard')")
    assert await opened.page.evaluate("document.body.dataset.state") == "working"


@pytest.mark.parametrize(("clip", "sent"), [(LONG, 2), (LARGE, 1)], ids=["long", "large"])
async def test_it_is_heard_while_one_watches(
    browser: Browser, door: Gateway, clip: bytes, sent: int
):
    async with tab(browser, door.url) as opened:
        await opened.drop(clip, "meeting.wav")
        await part_heard(opened)
        assert await opened.text("#percent") == f"{int(await progress(opened) * 100)} % heard"
        assert (await Axe().run(opened.page)).violations_count == 0
        assert await opened.sideways() <= 0
        await opened.until("result")
        lines = await opened.page.locator("#segments li").count()
        assert lines >= len(clip) / 64_000
        assert await opened.text("#status") == f"Done: {2 * lines} words."
        assert await opened.text("#percent") == ""
        posts = [asked for asked in opened.asked if asked.startswith("POST")]
        assert len(posts) == sent  # what is too large is not tried as a request


async def test_loaded_anew_in_the_middle_it_goes_on_and_once_more_shows_the_end(
    browser: Browser, door: Gateway
):
    async with tab(browser, door.url) as opened:
        await opened.drop(LONG, "meeting.wav")
        await part_heard(opened)
        for _ in range(2):
            await opened.page.reload()
            await opened.until("result")
            assert await opened.text("#name") == "meeting.wav"
            assert await opened.page.locator("#segments li").count() >= 6
            assert await opened.page.is_hidden("#play")  # the sound is gone
        assert (await Axe().run(opened.page)).violations_count == 0
        name, text = await opened.download("Download text")
        assert (name, text.startswith("part 0")) == ("meeting.txt", True)
        await opened.drop(wav_bytes(tone(1.0)), "short.wav")
        await opened.until("result")
        assert await opened.page.evaluate("sessionStorage.getItem('job')") is None
        assert [asked.split(" ")[0] for asked in opened.asked].count("DELETE") >= 1


async def test_a_line_that_breaks_is_taken_up_where_it_broke(browser: Browser, door: Gateway):
    async with tab(browser, door.url) as opened:
        await opened.drop(LONG, "meeting.wav")
        await part_heard(opened)
        await opened.page.context.set_offline(True)
        await opened.page.wait_for_selector("#status:text('cannot be reached')")
        await opened.page.context.set_offline(False)
        await opened.until("result")
        starts = await opened.page.locator("#segments time").all_inner_texts()
        assert starts == sorted(starts)
        assert len(starts) >= 6


async def test_cancelled_it_stops_at_the_workers_too(
    browser: Browser, door: Gateway, house: Workers
):
    async with tab(browser, door.url) as opened:
        await opened.drop(LARGE, "meeting.wav")
        await part_heard(opened)
        await opened.page.click("#cancel")
        await opened.until("held")
        assert await opened.text("#status") == "Cancelled. Your recording is still here."
        assert await opened.page.is_visible("#again")
        (worker,) = house.jobs
        await until(lambda: not worker.lanes.jobs)
        await opened.page.reload()
        await opened.until("empty")


async def test_what_cannot_be_heard_is_called_that(browser: Browser, door: Gateway):
    async with tab(browser, door.url) as opened:
        await opened.drop(b"Dear diary," * 60_000, "diary.wav")
        assert "This file could not be read as audio." in await opened.trouble()
        assert await opened.page.is_hidden("#retry")
        await opened.drop(bytes(1_000_001), "huge.wav")
        assert "huge.wav has 0.95 MB; the limit is 0.95 MB" in await opened.trouble()
