"""Somebody else's stages: dropped in, in a folder, installed; wrong, failing and slow ones."""

import signal
import time
from pathlib import Path

import pytest

from bus_worker import errors
from bus_worker.client import TranscribeClient
from tests.helpers.processes import PRETEND, ROOT, Processes

SHOUT = '''
"""Say it louder."""
from pydantic import BaseModel
from bus_worker.plugin import Draft, stage

class Options(BaseModel):
    mark: str = "!"

@stage(Options, needs=("text",), gives=("text",), per_request=("mark",))
async def shout(draft: Draft, options: Options) -> None:
    """Shout the text."""
    draft.text = draft.text.upper() + options.mark
'''

TROUBLE = '''
"""Stages that go wrong."""
import asyncio
import time
from pydantic import BaseModel
from bus_worker.plugin import Draft, stage

class Options(BaseModel):
    seconds: float = 30.0

@stage(Options, gives=("text",))
async def broken(draft: Draft, options: Options) -> None:
    """Raise."""
    raise KeyError("/etc/inner-secret")

@stage(Options, gives=("text",))
async def sleepy(draft: Draft, options: Options) -> None:
    """Sleep as a coroutine."""
    await asyncio.sleep(options.seconds)

@stage(Options, gives=("text",))
def blocking(draft: Draft, options: Options) -> None:
    """Sleep in a thread."""
    time.sleep(options.seconds)
'''


@pytest.fixture
def shout(tmp_path: Path) -> Path:
    """A file with a stage, alone in its folder."""
    path = tmp_path / "mine" / "shout.py"
    path.parent.mkdir()
    path.write_text(SHOUT)
    return path


@pytest.fixture
def trouble(tmp_path: Path) -> Path:
    """A file with stages that go wrong."""
    path = tmp_path / "trouble.py"
    path.write_text(TROUBLE)
    return path


async def heard(processes: Processes, **asked: object) -> str:
    async with TranscribeClient(processes.url, model="pretend", timeout=10) as caller:
        return (await caller.transcribe(b"x" * 7, **asked)).text


async def test_a_stage_in_another_folder_runs_with_its_options(processes: Processes, shout: Path):
    await processes.start(1, shout.parent, PIPELINE="pretend,shout", SHOUT__MARK="?")
    assert await heard(processes) == "7 BYTES?"
    assert await heard(processes, stages={"shout": {"mark": "!!"}}) == "7 BYTES!!"


async def test_a_stage_dropped_in_beside_ours_runs(processes: Processes, tmp_path: Path):
    # A copy of our own folder with one file more: the checkout stays as it is.
    ours = tmp_path / "copy" / "plugins"
    ours.mkdir(parents=True)
    for path in (ROOT / "plugins").iterdir():
        (ours / path.name).symlink_to(path)
    (ours / "shout.py").write_text(SHOUT)
    await processes.start(1, PIPELINE="pretend,shout", PYTHONPATH=f"{ours.parent}:{ROOT}")
    assert await heard(processes) == "7 BYTES!"


def install(site: Path, name: str = "shouting") -> Path:
    """Lay a distribution out as pip leaves it: a module and its metadata with an entry point."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(SHOUT)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bus_worker.stages]\n{name} = {name}\n")
    return site / f"{name}.py"


async def test_a_stage_of_an_installed_package_runs(processes: Processes, tmp_path: Path):
    site = tmp_path / "site"
    install(site)
    await processes.start(1, PIPELINE="pretend,shout", PYTHONPATH=f"{ROOT}:{site}")
    assert await heard(processes) == "7 BYTES!"


async def refusal(processes: Processes, *plugins: Path, **variables: str) -> str:
    """Why a worker does not start: its one sentence."""
    worker = await processes.spawn(*plugins, **variables)
    assert await worker.left(20) == 1
    assert not worker.lines
    (sentence,) = worker.sentences
    return sentence


async def test_two_stages_of_one_name_are_refused_by_their_files(
    processes: Processes, shout: Path, tmp_path: Path
):
    site = tmp_path / "site"
    installed = install(site)
    sentence = await refusal(
        processes, shout, PIPELINE="pretend,shout", PYTHONPATH=f"{ROOT}:{site}"
    )
    assert "two stages are named 'shout'" in sentence
    assert str(shout) in sentence
    assert str(installed) in sentence


async def test_an_unmet_need_is_refused_naming_who_would_meet_it(processes: Processes, shout: Path):
    sentence = await refusal(processes, shout, PIPELINE="shout,pretend")
    assert "'shout'" in sentence
    assert str(shout) in sentence
    assert "'text'" in sentence
    assert f"'pretend' ({PRETEND})" in sentence


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"PIPELINE": "pretend,shuot"}, ["shuot", "shout"]),
        ({"PIPELINE": "pretend,shout", "SHOUT__MARKS": "?"}, ["SHOUT__MARKS", "SHOUT__MARK"]),
        ({"PRETEND__SECONDS": "soon"}, ["PRETEND__SECONDS", "soon"]),
        ({"WORKER_SLOTS": "0"}, ["WORKER_SLOTS", "0"]),
    ],
    ids=["unknown-stage", "unknown-option", "bad-option", "bad-setting"],
)
async def test_a_typo_in_the_set_up_stops_the_start(
    processes: Processes, shout: Path, variables: dict[str, str], names: list[str]
):
    sentence = await refusal(processes, shout, **variables)
    for name in names:
        assert name in sentence


async def test_a_plugin_that_cannot_be_imported_is_named(processes: Processes, tmp_path: Path):
    path = tmp_path / "half.py"
    path.write_text("import numpyy\n")
    sentence = await refusal(processes, path)
    assert str(path) in sentence
    assert "numpyy" in sentence


async def test_a_stage_that_raises_is_named_and_its_insides_stay_in_the_log(
    processes: Processes, trouble: Path
):
    (worker,) = await processes.start(1, trouble, PIPELINE="broken")
    with pytest.raises(errors.Failed, match="stage 'broken' failed") as caught:
        await heard(processes)
    assert "inner-secret" not in str(caught.value.details) + caught.value.message
    assert caught.value.details == {"stage": "broken"}
    logged = await worker.said("stage_failed")
    assert (logged["stage"], "inner-secret" in logged["exception"]) == ("broken", True)
    assert logged["request_id"] == (await worker.said("request"))["request_id"]


@pytest.mark.parametrize("stage", ["sleepy", "blocking"])
async def test_a_stage_that_sleeps_past_the_deadline_does_not_hold_its_caller(
    processes: Processes, trouble: Path, stage: str
):
    (worker,) = await processes.start(1, trouble, PIPELINE=stage)
    asked = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        async with TranscribeClient(processes.url, model="pretend") as caller:
            await caller.transcribe(b"x", timeout=0.5)
    assert time.monotonic() - asked < 3
    assert (await worker.said("request"))["code"] == "deadline_exceeded"
    worker.signal(signal.SIGTERM)
    assert await worker.left(5) == 0
