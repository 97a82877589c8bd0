"""The Node program of the README, with the packages it names, on a real worker."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from nats.aio.client import Client

from bus_worker.client import TranscribeClient
from bus_worker.settings import Settings
from tests.helpers.node import installed, run_node
from tests.helpers.processes import ROOT, Processes, until_busy

EXAMPLE = ROOT / "deploy" / "examples" / "transcribe.mjs"
PACKAGES = ("@nats-io/transport-node@3.4.0", "@msgpack/msgpack@3.1.3")


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example beside the packages it imports."""
    folder = installed(tmp_path_factory.mktemp("node"), "install", *PACKAGES)
    shutil.copy(EXAMPLE, folder)
    return folder


async def run_example(folder: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    """The example's status, output and complaint."""
    return await run_node(folder, EXAMPLE.name, *arguments, NATS_URL=url)


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 40


async def test_a_node_program_gets_a_transcript_even_when_it_must_wait_for_room(
    node_folder: Path,
    processes: Processes,
    caller: TranscribeClient,
    nc: Client,
    tmp_path: Path,
):
    (worker,) = await processes.start()
    clip = tmp_path / "clip.wav"
    clip.write_bytes(os.urandom(300_000))
    holding = asyncio.create_task(caller.transcribe(b"x", stages={"pretend": {"seconds": 1.5}}))
    await until_busy(nc)
    ran = await run_example(node_folder, processes.url, str(clip), "pretend")
    assert ran == (0, "300000 bytes\n", "")
    await holding
    assert [line["bytes"] > 300_000 for line in worker.lines if line["event"] == "request"] == [
        False,
        True,
    ]


async def test_a_node_program_hears_the_same_words(
    node_folder: Path, processes: Processes, speech: Path
):
    await processes.start(1, WHISPER_MODEL="base", PIPELINE=",".join(Settings().pipeline))
    clip = speech / "clips" / "jfk-wav.wav"
    async with TranscribeClient(processes.url, model="base") as caller:
        transcript = await caller.transcribe(clip.read_bytes(), language="en")
    assert "ask not what your country can do for you" in transcript.text
    ran = await run_example(node_folder, processes.url, str(clip))
    assert ran == (0, f"{transcript.text}\n", "")


async def test_a_node_program_reads_why_it_was_refused(
    node_folder: Path, processes: Processes, tmp_path: Path
):
    await processes.start(MAX_FILE_SIZE="1000")
    clip = tmp_path / "clip.wav"
    clip.write_bytes(bytes(1001))
    status, out, complaint = await run_example(node_folder, processes.url, str(clip), "pretend")
    assert (status, out) == (1, "")
    assert complaint == "too_large: the audio has 1001 bytes; the limit is 1000 (MAX_FILE_SIZE)\n"
