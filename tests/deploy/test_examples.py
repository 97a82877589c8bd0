"""What the pages show is run as they show it."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from bus_worker.jobs import Limits
from bus_worker.loader import find_stages
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.testing import draft_of, pretend, run_stage
from plugins.decode import decode
from plugins.limits import limits
from plugins.tidy import tidy
from tests.helpers.docs import ROOT
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.tones import tone, wav_bytes

GAIN = ROOT / "deploy" / "examples" / "gain.py"


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )


def test_a_stage_is_fifteen_lines():
    lines = [line for line in GAIN.read_text().splitlines() if line.strip()]
    assert len(lines) <= 15
    assert GAIN.read_text().strip() in "".join(blocks("README.md"))
    assert GAIN.read_text().strip() in "".join(blocks("plugins/README.md"))


async def test_the_stage_from_the_pages_runs_when_its_file_is_named():
    stages = find_stages([GAIN])
    names = ["decode", "limits", "gain"]
    pipeline = Pipeline.order(names, stages, lambda stage: stage.options())
    draft = Draft(audio=wav_bytes(tone(0.5, level=0.25)))
    async with pipeline.open() as opened:
        await opened.run(draft, opened.options_for({"gain": {"gain": 2.0}}))
    assert draft.samples is not None
    assert abs(float(draft.samples.max()) - 0.5) < 0.01


async def test_the_page_on_plugins_tests_a_stage_as_it_says():
    (code,) = (block for block in blocks("plugins/README.md") if "def test_" in block)
    names = {"np": np, "gain": find_stages([GAIN])["gain"]}
    exec(compile(code, "plugins/README.md", "exec"), names)  # noqa: S102 - our own page
    await names["test_gain_doubles_the_samples"]()


async def test_the_page_on_plugins_opens_a_stage_as_it_says(tmp_path):
    (code,) = (block for block in blocks("plugins/README.md") if "def spell(" in block)

    class Words(dict[str, str]):
        @classmethod
        def read(cls, path: Path) -> "Words":
            return cls(line.split() for line in path.read_text().splitlines())

        def corrected(self, text: str) -> str:
            return " ".join(self.get(word, word) for word in text.split())

    class Options(NoOptions):
        path: Path = Path("words")

    file = tmp_path / "words"
    file.write_text("jon John\n")
    names = {
        "AsyncIterator": AsyncIterator, "Draft": Draft, "Options": Options, "Words": Words,
        "asyncio": asyncio, "contextlib": contextlib, "stage": stage,
    }  # fmt: skip
    source = tmp_path / "spell.py"
    source.write_text(code)
    exec(compile(code, str(source), "exec"), names)  # noqa: S102 - our own page
    draft = await run_stage(names["spell"], draft_of(tone(1), text="dear jon"), path=file)
    assert draft.text == "dear John"


async def printed(program: str, folder: Path) -> list[str]:
    """The lines that a program prints, run where there is a `hello.wav`."""
    (folder / "hello.wav").write_bytes(wav_bytes(tone(0.5)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (0, b"")
    return out.decode().splitlines()


async def test_the_readmes_python_program_prints_the_transcript(
    workers: Workers, tmp_path: Path
) -> None:
    await workers.start(slots=1, seconds=0.05)
    (code,) = (block for block in blocks("README.md") if "client.transcribe(" in block)
    program = code.replace("nats://localhost:4222", workers.server.url)
    assert program != code
    assert await printed(program, tmp_path) == ["16044 bytes", "0  part 0"]


async def test_the_readmes_program_hands_in_a_job_and_prints_its_text(
    workers: Workers, tmp_path: Path
) -> None:
    await workers.start(decode, limits, pretend, tidy, jobs=Limits(), segments=2, seconds=0.05)
    (tmp_path / "meeting.mp3").write_bytes(wav_bytes(tone(40)))
    (code,) = (block for block in blocks("README.md") if "client.submit(" in block)
    job_id, *heard, last = await printed(
        code.replace("nats://localhost:4222", workers.server.url), tmp_path
    )
    assert len(job_id) == 32
    assert [line.split(maxsplit=1)[1] for line in heard] == ["part 0", "part 1"] * 2
    assert last == "40.0 en"


async def test_the_readmes_openai_program_prints_the_text_and_its_events(
    workers: Workers, tmp_path: Path
) -> None:
    await workers.start(pretend, tidy, segments=2, seconds=0.05)
    (code,) = (block for block in blocks("README.md") if "OpenAI(" in block)
    async with gateway(workers.server.url) as door:
        program = code.replace("http://localhost:8000", door.url)
        assert program != code
        assert await printed(program, tmp_path) == [
            "part 0 part 1", *["transcript.text.delta"] * 2, "transcript.text.done",
        ]  # fmt: skip
