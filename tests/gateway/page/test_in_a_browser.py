"""The page in a real Chromium: what a person sees, hears, and takes away."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser

from bus_worker import formats
from bus_worker.embedded import nats_server
from bus_worker.messages import Segment, Transcript
from bus_worker.settings import Settings
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from bus_worker.testing import segment
from tests.conftest import SPEECH
from tests.helpers.browser import Tab, chromium, tab
from tests.helpers.clips import words
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers, until
from tests.helpers.processes import Processes
from tests.helpers.tones import tone, wav_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
CLIP = wav_bytes(tone(3.0))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(spoken: Path) -> AsyncIterator[Browser]:
    """One browser for all these tests."""
    async with chromium(spoken) as browser:
        yield browser


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: real speech where there is some, else a tone."""
    if (clip := SPEECH / "clips" / "jfk-wav.wav").is_file():
        return clip
    beep = tmp_path_factory.mktemp("spoken") / "tone.wav"
    beep.write_bytes(CLIP)
    return beep


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ears(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway, and behind it a worker with a real model."""
    folder = tmp_path_factory.mktemp("ears")
    async with (
        nats_server(default_model="base") as server,
        Processes(server.url, folder) as processes,
    ):
        await processes.start(1, WHISPER_MODEL="base", PIPELINE=",".join(Settings().pipeline))
        async with gateway(server.url, default_model="base", request_timeout=40) as opened:
            yield opened


async def test_what_is_spoken_is_written_and_taken_home_as_subtitles(
    browser: Browser, ears: Gateway
):
    async with tab(browser, ears.url) as opened:
        assert await opened.text("#service") == "Ready: 1 worker"
        await opened.page.click("#record")
        await opened.until("recording")
        await opened.page.wait_for_selector("#clock:text-is('0:04')")
        await opened.page.click("#stop")
        await opened.until("result")
        assert "and so my fellow american" in words(await opened.written())
        assert "English" in await opened.text("#facts")
        assert 3.5 < float(await opened.page.get_attribute("#seek", "max") or 0) < 10
        name, srt = await opened.download("Download SRT subtitles")
        assert name == "recording.srt"
        assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n", srt)
        assert "and so my fellow american" in words(srt)


async def test_a_dropped_file_is_heard_and_each_line_plays_its_own_sound(
    browser: Browser, ears: Gateway, speech: Path
):
    async with tab(browser, ears.url, permissions=["clipboard-read", "clipboard-write"]) as opened:
        await opened.page.select_option("#language", label="English")
        await opened.page.select_option("#model", "base")
        await opened.drop((speech / "clips" / "jfk-wav.wav").read_bytes(), "speech of 1961.wav")
        await opened.until("result")
        assert "ask not what your country can do for you" in words(await opened.written())
        lines = opened.page.locator("#segments button")
        assert await lines.count() > 1
        await lines.last.click()
        current = "button[aria-current=true].playing"
        await opened.page.wait_for_selector(f"#segments li:last-child {current}")
        minutes, seconds = (await lines.last.locator("time").inner_text()).split(":")
        at = await opened.page.evaluate("document.getElementById('audio').currentTime")
        assert 0 <= at - (int(minutes) * 60 + int(seconds)) < 4
        await lines.last.click()
        await opened.page.wait_for_selector("#play:not(.pauses)")
        await opened.page.click("#copy")
        await opened.page.wait_for_selector("#status:text-is('Copied.')")
        copied = await opened.page.evaluate("navigator.clipboard.readText()")
        assert words(copied) == words(await opened.written())
        name, text = await opened.download("Download text")
        assert name == "speech of 1961.txt"
        assert words(text).endswith("for your country")


async def test_a_bus_that_has_stopped_is_called_that_and_the_recording_is_kept(browser: Browser):
    async with nats_server(default_model="pretend") as server, Workers(server) as workers:
        await make_streams((await workers.bus()).client, Subjects())
        await workers.start(seconds=0)
        async with gateway(server.url, request_timeout=2) as door, tab(browser, door.url) as opened:
            await server.stop()
            await opened.drop(CLIP, "tone.wav")
            said = await opened.trouble()
            assert "The bus that carries audio to the workers has stopped." in said
            assert "unavailable" in said
            assert await opened.text("#service") == "The bus has stopped"
            await server.start()
            await opened.page.wait_for_timeout(500)
            await opened.page.click("#retry")
            await opened.until("result")
            assert await opened.page.is_hidden("#trouble")


async def test_the_key_is_asked_for_and_stays_in_this_tab(browser: Browser, house: Workers):
    async with (
        gateway(house.server.url, api_key="sesame") as door,
        tab(browser, door.url) as opened,
    ):
        box = opened.page.get_by_label("API key")
        await box.fill("simsim")
        await box.press("Enter")
        await opened.page.get_by_text("The key that you gave was not accepted.").wait_for()
        await box.fill("sesame")
        await opened.page.get_by_role("button", name="Use this key").click()
        await opened.page.wait_for_selector("#service[data-mood=good]")
        await opened.drop(CLIP, "tone.wav")
        await opened.until("result")
        kept = await opened.page.evaluate(
            "[{...sessionStorage}, {...localStorage}, document.cookie]"
        )
        assert kept == [{"api-key": "sesame"}, {}, ""]
        assert [asked for asked in opened.asked if "sesame" in asked] == []


async def test_a_key_that_is_not_given_leaves_a_page_that_says_so(browser: Browser, house: Workers):
    async with (
        gateway(house.server.url, api_key="sesame") as door,
        tab(browser, door.url) as opened,
    ):
        await opened.page.keyboard.press("Escape")
        await opened.page.wait_for_selector("#service[data-mood=bad]")
        assert await opened.text("#service") == "Needs a key"
        await opened.drop(CLIP, "tone.wav")
        await opened.page.get_by_role("button", name="Not now").click()
        assert "did not accept the key" in await opened.trouble()


async def test_a_file_over_the_limit_is_refused_before_it_is_sent(browser: Browser, door: Gateway):
    async with tab(browser, door.url) as opened:
        await opened.drop(bytes(6_000_001), "long.wav")
        said = await opened.trouble()
        assert "This file is larger than the service takes." in said
        assert "long.wav has 5.7 MB" in said
        assert [asked for asked in opened.asked if "transcribe" in asked] == []


async def test_a_file_that_is_no_audio_is_refused_in_plain_words(browser: Browser, ears: Gateway):
    async with tab(browser, ears.url) as opened:
        await opened.drop(b"Dear diary," * 100, "diary.wav")
        assert "This file could not be read as audio." in await opened.trouble()
        assert await opened.page.is_hidden("#retry")
        await opened.page.click("#dismiss")
        assert await opened.page.is_hidden("#trouble")
        assert await opened.page.is_hidden("#again")


async def test_a_recording_ends_by_itself_before_it_is_too_long(browser: Browser, house: Workers):
    async with (
        gateway(house.server.url, max_audio_duration=1.5) as door,
        tab(browser, door.url) as opened,
    ):
        assert await opened.text("#status") == (
            "Record up to 2 seconds, or choose a file of up to 4 hours and 500 MB."
        )
        await opened.page.click("#record")
        await opened.until("result")
        assert 0.5 < float(await opened.page.get_attribute("#seek", "max") or 0) < 1.5


async def test_a_microphone_that_may_not_be_used_is_called_that(browser: Browser, door: Gateway):
    async with tab(browser, door.url, permissions=[]) as opened:
        await opened.page.click("#record")
        assert "did not let this page use the microphone" in await opened.trouble()
        await opened.until("empty")


async def test_a_service_that_is_gone_is_called_that_and_the_file_is_kept(
    browser: Browser, door: Gateway
):
    async with tab(browser, door.url) as opened:
        await opened.page.context.set_offline(True)
        await opened.drop(CLIP, "tone.wav")
        assert "The service did not answer." in await opened.trouble()
        await opened.page.context.set_offline(False)
        await opened.page.click("#retry")
        await opened.until("result")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('event: segment\ndata: {"start": 0, "end": 1, "text": "<b>A"}\n\n', "broke off"),
        ("event: segment\ndata: {half\n\n", "Something went wrong"),
        ('event: error\ndata: {"error": {"code": "failed", "message": "the <i>stage"}}\n\n', "<i>"),
    ],
    ids=["cut off", "broken", "an error"],
)
async def test_an_answer_that_ends_badly_is_no_transcript(
    browser: Browser, door: Gateway, answer: str, said: str
):
    async with tab(browser, door.url) as opened:
        await opened.page.route(
            "**/transcribe",
            lambda route: route.fulfill(content_type="text/event-stream", body=answer),
        )
        await opened.drop(CLIP, "tone.wav")
        assert said in await opened.trouble()
        await opened.until("held")
        assert await opened.written() == ("<b>A" if "<b>" in answer else "")


async def test_everything_can_be_done_with_the_keyboard_alone(browser: Browser, door: Gateway):
    async with tab(browser, door.url) as opened:
        keys = opened.page.keyboard
        focus = "document.activeElement.id || document.activeElement.className"
        await reach(opened, "record")
        await keys.press("Enter")
        await opened.until("recording")
        assert await opened.page.evaluate(focus) == "stop"
        await opened.page.wait_for_timeout(600)
        await keys.press("Space")
        await opened.until("result")
        assert await opened.page.evaluate(focus) == "play"
        await reach(opened, "segment")
        await keys.press("Enter")
        await opened.page.wait_for_selector("#segments button[aria-current=true]")
        await keys.press("ArrowDown")
        await reach(opened, "copy")
        await reach(opened, "record", "Shift+Tab")
        await keys.press("Enter")
        await opened.until("recording")
        await keys.press("Escape")
        await opened.until("empty")
        assert await opened.text("#status") == "Discarded."


async def reach(opened: Tab, name: str, key: str = "Tab") -> None:
    """Press Tab until the element has the focus, and can be seen to have it."""
    for _ in range(40):
        await opened.page.keyboard.press(key)
        focused = await opened.page.evaluate(
            "[document.activeElement.id || document.activeElement.className,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if focused[0] == name:
            assert focused[1] == "solid"
            return
    pytest.fail(f"{name} cannot be reached with {key}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_state_breaks_a_rule_of_accessibility_or_a_phones_width(
    browser: Browser, door: Gateway, scheme: str
):
    async with tab(browser, door.url, color_scheme=scheme, **PHONE) as opened:
        await at_ease(opened)
        await opened.page.click("#record")
        await opened.until("recording")
        await at_ease(opened)
        await opened.page.click("#stop")
        await opened.until("result")
        await opened.page.click("#segments button")
        await at_ease(opened)
        await opened.drop(bytes(6_000_001), "long.wav")
        await opened.trouble()
        await at_ease(opened)


async def at_ease(opened: Tab) -> None:
    results = await Axe().run(opened.page)
    assert results.violations_count == 0, results.generate_report()
    assert await opened.sideways() <= 0


async def test_cancelling_gives_the_worker_back_and_keeps_the_recording(browser: Browser):
    async with nats_server(default_model="pretend") as server, Workers(server) as workers:
        await make_streams((await workers.bus()).client, Subjects())
        service = await workers.start(seconds=20, segments=20)
        async with gateway(server.url) as door, tab(browser, door.url) as opened:
            await opened.drop(CLIP, "tone.wav")
            await opened.page.wait_for_selector("#segments li >> nth=1")
            await opened.page.click("#cancel")
            await opened.until("held")
            assert await opened.text("#status") == "Cancelled. Your recording is still here."
            assert await opened.page.is_visible("#again")
            await until(lambda: service.credits.busy == 0)


async def test_subtitles_made_in_the_browser_are_those_of_the_command_line(
    browser: Browser, door: Gateway, transcript_of: Callable[..., Transcript]
):
    texts = (" a --> b ", "<i>&amp;</i>", "two\n\nlines\u2028three", " \n ", "\0 nul", "日本 ok")
    segments = [segment(text, at * 700.005, at * 700.005, at) for at, text in enumerate(texts)]
    transcript = with_segments(transcript_of(), segments)
    script = """async (transcript) => {
      const { FORMATS } = await import("/page/subtitles.js");
      return Object.fromEntries(Object.entries(FORMATS).map(([name, { write }]) => [name, write(transcript)]));
    }"""
    async with tab(browser, door.url) as opened:
        made = await opened.page.evaluate(script, transcript.to_map())
    assert made == {
        "txt": formats.to_text(transcript),
        "srt": formats.to_srt(transcript),
        "vtt": formats.to_vtt(transcript),
    }


def with_segments(transcript: Transcript, segments: list[Segment]) -> Transcript:
    text = " ".join(segment.text for segment in segments)
    return Transcript(**{**vars_of(transcript), "segments": segments, "text": text})


def vars_of(transcript: Transcript) -> dict[str, object]:
    return {name: getattr(transcript, name) for name in transcript.__dataclass_fields__}
