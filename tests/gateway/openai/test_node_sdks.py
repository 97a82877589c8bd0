"""The `openai` package for Node and the Vercel AI SDK against the gateway."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import Workers
from tests.helpers.node import installed, run_node
from tests.helpers.tones import tone, wav_bytes
from tests.helpers.trouble import reluctant

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = Path(__file__).parent / "node"
DRIVER = "drive.mjs"
TEXT = "part 0 part 1"
Results = dict[str, Any]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vendors' packages and the program that drives them."""
    folder = tmp_path_factory.mktemp("sdks")
    for name in ("package.json", "package-lock.json", DRIVER):
        shutil.copy(NODE / name, folder)
    return installed(folder, "ci")


async def driven(packages: Path, door: Gateway, *cases: str) -> Results:
    """What cases gave, and how many requests each took."""
    (packages / "clip.wav").write_bytes(wav_bytes(tone(0.2)))
    status, out, complaint = await run_node(packages, DRIVER, door.url, "clip.wav", *cases)
    assert status == 0, complaint
    told: Results = json.loads(out)
    return told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(packages: Path, door: Gateway) -> Results:
    """What every case gave."""
    told = await driven(packages, door)
    # Nothing of this helps to be sent again.
    assert [name for name, case in told.items() if case["requests"] != 1] == []
    return {name: case["gave"] for name, case in told.items()}


async def test_every_format_comes_as_the_package_promises(results: Results):
    assert results["json"]["text"] == results["from_memory"]["text"] == TEXT
    assert results["text"] == f"{TEXT}\n"
    assert results["srt"].startswith("1\n00:00:00,000 --> 00:00:01,000\npart 0\n\n2\n")
    assert results["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\npart 0\n\n")
    assert results["every_field"]["text"] == results["translation"]["text"] == TEXT


async def test_granularities_choose_what_verbose_json_lists(results: Results):
    listed = {"segments", "words"}
    assert listed & results["verbose"].keys() == {"segments"}
    assert listed & results["words"].keys() == {"words"}
    assert listed & results["both"].keys() == listed
    assert [s["text"] for s in results["both"]["segments"]] == [" part 0", " part 1"]


async def test_a_stream_is_deltas_and_then_the_whole_text(results: Results):
    *deltas, done = results["stream"]
    assert [event["type"] for event in deltas] == ["transcript.text.delta"] * 2
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == TEXT


async def test_models_and_request_ids_are_read(results: Results):
    assert results["models"] == ["pretend"]
    assert results["model"]["object"] == "model"
    assert re.fullmatch(r"[0-9a-f]{16}", results["request_id"])


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("no_such_model", ("NotFoundError", 404, "model", "model_not_found")),
        ("no_such_format", ("BadRequestError", 400, "response_format", "unsupported_value")),
        ("wrong_key", ("AuthenticationError", 401, None, "invalid_api_key")),
    ],
)
async def test_errors_are_the_packages_own_classes(
    results: Results, case: str, wanted: tuple[str, int, str | None, str]
):
    error = results[case]
    assert tuple(error[name] for name in ("error", "status", "param", "code")) == wanted
    assert error["requestID"]


async def test_the_ai_sdk_transcribes(results: Results):
    assert results["ai_sdk"] == {"text": TEXT, "segments": [], "durationInSeconds": 0}
    times = [{"startSecond": n, "endSecond": n + 1} for n in range(2)]
    assert results["ai_sdk_verbose"] == {
        "text": TEXT,
        "segments": [{"text": f" part {n}", **times[n]} for n in range(2)],
        "language": "en",
        "durationInSeconds": 0,
    }
    assert results["ai_sdk_words"]["text"] == results["ai_sdk_json"]["text"] == TEXT


async def test_the_ai_sdk_reads_our_errors(results: Results):
    error = results["ai_sdk_no_such_model"]
    assert (error["error"], error["statusCode"]) == ("APICallError", 404)
    assert error["message"] == "no worker serves 'huge'; served: pretend"


@pytest.mark.asyncio(loop_scope="function")
async def test_both_ask_again_when_there_was_no_room(packages: Path, workers: Workers):
    await workers.start(reluctant())
    async with gateway(workers.server.url) as door:
        told = await driven(packages, door, "from_memory", "ai_sdk")
    assert [(case["gave"]["text"], case["requests"]) for case in told.values()] == [
        ("asked 2 times", 2), ("asked 4 times", 2),
    ]  # fmt: skip
