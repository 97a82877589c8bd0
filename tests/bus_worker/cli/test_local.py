"""Files heard in this process; the engine only pretends."""

import asyncio
import json
import signal
from pathlib import Path

from tests.helpers.shell import NOBODY, PRETEND, shell, started


async def test_local_takes_the_same_road_without_a_bus(folder: Path):
    ended = await shell(
        "transcribe", "--local", "--format", "json", "a.wav", "b.mp3",
        cwd=folder, NATS_URL=NOBODY, **PRETEND,
    )  # fmt: skip
    assert ended.err == ""
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert [(a["file"], a["text"]) for a in answers] == [
        ("a.wav", "1 bytes"),
        ("b.mp3", "22 bytes"),
    ]
    assert answers[0]["worker_id"] == "local"
    assert answers[0]["model"]["name"] == "pretend"


async def test_local_checks_a_request_as_a_worker_does(folder: Path):
    ended = await shell(
        "transcribe", "--local", "--prompt", "x" * 5000, "a.wav", cwd=folder, **PRETEND
    )
    assert ended.sentence.startswith("a.wav: 'options.prompt'")


async def test_local_hears_with_the_model_it_is_told(folder: Path):
    variables = {**PRETEND, "WHISPER__MODEL": "one", "MODEL_NAME": "two"}
    ended = await shell(
        "transcribe", "--local", "--model", "three", "--format", "json", "a.wav",
        cwd=folder, **variables,
    )  # fmt: skip
    assert json.loads(ended.out)["model"]["name"] == "three"


async def test_local_gives_up_at_the_timeout(folder: Path):
    ended = await shell(
        "transcribe", "--local", "--timeout", "0.2", "a.wav",
        cwd=folder, PRETEND__SECONDS="30", **PRETEND,
    )  # fmt: skip
    assert ended.status == 1
    assert ended.sentence == "a.wav: The answer was not ready by the request's deadline."


BROKEN = """
from bus_worker.plugin import stage

@stage()
async def broken(draft, options):
    raise LookupError("secret")
"""


async def test_local_names_the_stage_that_failed_and_how_to_see_why(folder: Path):
    (folder / "broken.py").write_text(BROKEN)
    variables = {"PIPELINE": "broken", "PLUGINS_PATH": "broken.py", "WHISPER_MODEL": "pretend"}
    ended = await shell("transcribe", "--local", "a.wav", cwd=folder, **variables)
    assert ended.status == 1
    assert ended.sentence == "a.wav: stage 'broken' failed (LOG_LEVEL=ERROR shows why)"
    ended = await shell(
        "transcribe", "--local", "a.wav", cwd=folder, LOG_LEVEL="ERROR", **variables
    )
    assert "LookupError: secret" in ended.err


HANGING = """
import sys, time
from bus_worker.plugin import stage

@stage()
def hanging(draft, options):
    print("hanging", file=sys.stderr, flush=True)
    time.sleep(60)
"""


async def test_local_leaves_at_ctrl_c_though_a_thread_hangs(folder: Path):
    (folder / "hanging.py").write_text(HANGING)
    variables = {"PIPELINE": "hanging", "PLUGINS_PATH": "hanging.py", "WHISPER_MODEL": "pretend"}
    async with started("transcribe", "--local", "a.wav", cwd=folder, **variables) as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            assert await process.stderr.readline() == b"hanging\n"
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")
