"""A real Chromium without a window, its microphone fed from a file, and what a person does in it."""

import base64
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
DROP = """async ([name, type, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}"""


def installed() -> str:
    """Where the browser is; without one there is nothing to try, except where everything must be tried."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("there is no Chromium here")
    pytest.skip("there is no Chromium here")


@contextlib.asynccontextmanager
async def chromium(spoken: Path) -> AsyncIterator[Browser]:
    """One browser; its microphone hears the WAV `spoken`, over and over, anew for each recording."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=installed(),
            args=[
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={spoken}",
            ],
        )
        yield browser
        await browser.close()


class Tab:
    """The page in a tab of its own; knows whatever went wrong in it and whatever it asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self._heard(said.text))
        page.on("request", lambda request: self.asked.append(f"{request.method} {request.url}"))

    def _heard(self, text: str) -> None:
        if "Content Security Policy" in text or "Permissions policy" in text:
            self.wrong.append(text)

    async def text(self, selector: str) -> str:
        """What an element says."""
        return (await self.page.inner_text(selector)).strip()

    async def written(self) -> str:
        """All lines of the transcript."""
        return " ".join(await self.page.locator("#segments span").all_inner_texts())

    async def until(self, state: str) -> None:
        """Wait until the page is in that state."""
        await self.page.wait_for_selector(f"body[data-state={state}]")

    async def trouble(self) -> str:
        """Wait for an error; what it says."""
        await self.page.wait_for_selector("#trouble", state="visible")
        return await self.text("#trouble")

    async def drop(self, data: bytes, name: str, kind: str = "audio/wav") -> None:
        """Drop a file on the page."""
        await self.page.evaluate(DROP, [name, kind, base64.b64encode(data).decode()])

    async def download(self, name: str) -> tuple[str, str]:
        """Name and text of the file that a button gives."""
        async with self.page.expect_download() as started:
            await self.page.get_by_role("button", name=name).click()
        saved = await started.value
        return saved.suggested_filename, _text(await saved.path())

    async def sideways(self) -> int:
        """Pixels by which the page is wider than its window."""
        wider: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider


@contextlib.asynccontextmanager
async def tab(browser: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """The page, open; at the end nothing may have gone wrong in it, nor been asked of anybody else."""
    context = await browser.new_context(**{"permissions": ["microphone"], **options})
    context.set_default_timeout(60_000)
    opened = Tab(await context.new_page(), url)
    await opened.page.goto(url)
    await opened.page.wait_for_selector("#service:not([data-mood=asking]), dialog[open]")
    yield opened
    await context.close()
    assert opened.wrong == []
    foreign = [a for a in opened.asked if not a.split(" ")[1].startswith((url, "blob:", "data:"))]
    assert foreign == []


def _text(path: Path) -> str:
    return path.read_bytes().decode()
