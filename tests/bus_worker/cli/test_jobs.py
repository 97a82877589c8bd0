"""Jobs from the shell, on a real nats-server; the engine only pretends."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bus_worker.cli import main
from bus_worker.embedded import NatsServer
from bus_worker.errors import BadAudio
from bus_worker.jobs.means import Limits
from bus_worker.plugin import Draft, stage
from bus_worker.testing import pretend
from tests.helpers.house import Workers
from tests.helpers.shell import Outcome, shell, started


class Options(BaseModel):
    """None."""


@stage(Options)
def picky(draft: Draft, options: Options) -> None:
    """Refuse audio of one byte."""
    if len(draft.audio) == 1:
        raise BadAudio("poison")


class Shell:
    """`bus-worker jobs` on one bus, in one folder."""

    def __init__(self, workers: Workers, folder: Path) -> None:
        self.workers = workers
        self.on_bus: dict[str, Any] = {"cwd": folder, "NATS_URL": workers.server.url}

    async def __call__(self, *arguments: str, **more: Any) -> Outcome:
        return await shell("jobs", *arguments, **self.on_bus, **more)

    async def submit(self, *arguments: str, **more: Any) -> str:
        ended = await self("submit", *arguments, **more)
        assert (ended.status, ended.err) == (0, "")
        return ended.out.strip()


@pytest.fixture
async def jobs(workers: Workers, folder: Path) -> Shell:
    await workers.start(picky, pretend, seconds=0.2, slots=2, jobs=Limits(), job_slots=2)
    return Shell(workers, folder)


@pytest.fixture
async def idle(workers: Workers, folder: Path) -> Shell:
    """Queues that nobody takes from."""
    await workers.start(jobs=Limits())
    for worker in workers.jobs:
        await worker.stop_taking()
    workers.jobs.clear()
    return Shell(workers, folder)


async def test_one_file_prints_its_id_and_watch_its_text(jobs: Shell):
    job_id = await jobs.submit("b.mp3")
    watched = await jobs("watch", job_id)
    assert (watched.status, watched.out) == (0, "22 bytes\n")
    assert watched.err.splitlines()[-1] == f"{job_id}: done 100%"
    result = await jobs("result", job_id, "--format", "srt")
    assert (result.out, result.err) == ("1\n00:00:00,000 --> 00:00:01,000\npart 0\n", "")


async def test_several_files_print_their_names_too_and_one_that_is_not_there_is_said(jobs: Shell):
    ended = await jobs("submit", "b.mp3", "gone.wav", "c.flac")
    assert ended.status == 1
    assert ended.sentence == "gone.wav: no such file or directory"
    ids, names = zip(*(line.split("  ") for line in ended.out.splitlines()), strict=True)
    assert names == ("b.mp3", "c.flac")
    assert len({*ids}) == 2


async def test_waiting_prints_the_transcripts_and_a_failure_is_named(jobs: Shell):
    ended = await jobs("submit", "c.flac", "a.wav", "b.mp3", "--wait")
    assert ended.status == 1
    assert ended.out == "==> c.flac <==\n333 bytes\n\n==> b.mp3 <==\n22 bytes\n"
    assert "bus-worker: a.wav: poison" in ended.err.splitlines()


async def test_a_pipe_is_handed_in_as_it_comes(jobs: Shell):
    ended = await jobs("submit", "-", "--wait", "--format", "json", stdin=b"12345")
    answer = json.loads(ended.out)
    assert (answer["file"], answer["text"]) == ("-", "5 bytes")


async def test_what_is_asked_reaches_the_job_and_its_status_shows_it(idle: Shell):
    asked = (
        "submit", "b.mp3", "--language", "de", "--task", "translate", "--prompt", "Also", "--words",
        "--priority", "high", "--webhook", "https://example.com/x", "--reply-to", "stt.results.x",
        "--idempotency-key", "k", "--model", "pretend",
    )  # fmt: skip
    job_id = (await idle(*asked)).out.strip()
    assert (await idle(*asked)).out.strip() == job_id
    client = await idle.workers.client()
    record = await client._all_jobs().results.record(job_id)
    assert (record.priority, record.webhook, record.reply_to) == (
        "high", "https://example.com/x", "stt.results.x",
    )  # fmt: skip
    other = await idle("submit", "c.flac", "--idempotency-key", "k")
    assert (other.status, other.out) == (1, "")
    assert other.sentence == "c.flac: This idempotency key was used for another request."
    shown = (await idle("status", job_id)).out.splitlines()
    assert shown[:5] == [
        f"job       {job_id}", "status    queued", "progress  0%", "model     pretend", "priority  high",
    ]  # fmt: skip
    status = json.loads((await idle("status", job_id, "--json")).out)
    assert (status["job_id"], status["status"], status["attempts"]) == (job_id, "queued", 0)


async def test_a_terminal_sees_a_bar(idle: Shell):
    job_id = await idle.submit("b.mp3")
    terminal, theirs = os.openpty()
    async with started("jobs", "watch", job_id, stderr=theirs, **idle.on_bus) as process:
        os.close(theirs)
        await asyncio.to_thread(_read_until, terminal, "[....................] queued 0%, ")
        await idle.workers.start(jobs=Limits())
        out, _ = await process.communicate()
    shown = await asyncio.to_thread(_read_all, terminal)
    assert out == b"22 bytes\n"
    assert shown.endswith("\r\x1b[K")


def _read_until(terminal: int, words: str) -> None:
    read = b""
    while words not in read.decode():
        read += os.read(terminal, 1 << 16)


def _read_all(terminal: int) -> str:
    read = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while block := os.read(terminal, 65536):
            read += block
    os.close(terminal)
    return read.decode()


@pytest.mark.parametrize("waiting", ["watch", "submit"])
async def test_ctrl_c_leaves_the_job_and_says_so(idle: Shell, waiting: str):
    job_id = await idle.submit("b.mp3", "--idempotency-key", "k")
    asked = ("watch", job_id) if waiting == "watch" else (
        "submit", "b.mp3", "--idempotency-key", "k", "--wait",
    )  # fmt: skip
    async with started("jobs", *asked, **idle.on_bus) as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            assert b"queued" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert b"goes on; `bus-worker jobs watch " + job_id.encode() in err
    assert "queued" in (await idle("status", job_id)).out


async def test_a_job_is_cancelled_once_and_then_erased(idle: Shell):
    job_id = await idle.submit("b.mp3")
    early = await idle("result", job_id)
    assert (early.status, early.sentence) == (
        1, "the job is queued; ask again when it is done",
    )  # fmt: skip
    erase = await idle("erase", job_id)
    assert (erase.status, erase.sentence) == (1, "the job has not ended: cancel it first")
    assert (await idle("cancel", job_id)) == Outcome(0, "", "")
    watched = await idle("watch", job_id)
    assert (watched.status, watched.out) == (1, "")
    assert watched.err.splitlines()[-1] == "bus-worker: the job was cancelled"
    assert (await idle("erase", job_id)) == Outcome(0, "", "")
    gone = await idle("status", job_id)
    assert gone.status == 1
    assert gone.sentence.startswith("There is no such job")


async def test_a_job_that_is_done_cannot_be_cancelled(jobs: Shell):
    client = await jobs.workers.client()
    job = await client.submit(b"xx")
    await job.result(timeout=30)
    ended = await jobs("cancel", job.id)
    assert (ended.status, ended.sentence) == (1, "the job is done: there is nothing to cancel")


async def test_those_that_failed_are_listed_shown_handed_in_again_and_dropped(jobs: Shell):
    job_id = await jobs.submit("a.wav", "--language", "de")
    watched = await jobs("watch", job_id)
    assert (watched.status, watched.err.splitlines()[-1]) == (1, "bus-worker: poison")
    shown = (await jobs("dead", "show", job_id)).out
    assert "error     bad_audio: poison\n" in shown
    assert (
        'asked     1 bytes, format "wav", options {"task": "transcribe", "language": "de"}' in shown
    )
    listed = (await jobs("dead")).out
    assert listed.startswith(f"{job_id}  ")
    assert listed.endswith("  bad_audio: poison\n")
    again = (await jobs("dead", "resubmit", job_id)).out.strip()
    assert again != job_id
    with pytest.raises(BadAudio):
        await (await jobs.workers.client()).job(again).result(timeout=30)
    assert (await jobs("dead", "drop", again)) == Outcome(0, "", "")
    ended = await jobs("dead", "drop", again)
    assert ended.status == 1
    assert ended.sentence == "there is no dead letter of this job, or not any more"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "a b"], "a job's id has 1 to 64 letters, digits, '_' and '-', and nothing else"),
        (["submit", "a.wav"], "a.wav: the bus keeps no jobs: enable jetstream on nats-server and run `bus-worker setup`"),
        (["dead"], "The bus keeps nothing under this name: enable jetstream on nats-server and run `bus-worker setup`."),
    ],
    ids=["id", "submit", "dead"],
)  # fmt: skip
async def test_what_cannot_be_is_said_in_one_sentence(
    bus_server: NatsServer, folder: Path, arguments: list[str], said: str
):
    ended = await shell("jobs", *arguments, cwd=folder, NATS_URL=bus_server.url)
    assert (ended.status, ended.out, ended.sentence) == (1, "", said)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a", "b", "--idempotency-key", "k"], "--idempotency-key names one job"),
        (["a", "--format", "srt"], "--format needs --wait"),
        (["a", "b", "--format", "srt", "--wait"], "one by one for srt and vtt"),
    ],
)
def test_what_does_not_fit_together_is_wrong_usage(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["jobs", "submit", *arguments]) == 2
    assert named in capsys.readouterr().err
