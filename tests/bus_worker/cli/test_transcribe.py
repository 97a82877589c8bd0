"""Files heard over the bus; the engine only pretends."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from bus_worker.embedded import nats_server
from tests.helpers.house import Workers, until
from tests.helpers.shell import NOBODY, shell, started


async def test_one_file_prints_its_text_alone(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell("transcribe", "b.mp3", cwd=folder, NATS_URL=workers.server.url)
    assert (ended.status, ended.out, ended.err) == (0, "22 bytes\n", "")


async def test_several_files_are_heard_at_once_and_printed_in_their_order(
    workers: Workers, folder: Path
):
    service = await workers.start(seconds=0.3, slots=3)
    async with started(
        "transcribe", "c.flac", "a.wav", "b.mp3", cwd=folder, NATS_URL=workers.server.url
    ) as process:
        await until(lambda: service.credits.busy == 3, 30)
        out, err = await process.communicate()
    assert out.decode() == (
        "==> c.flac <==\n333 bytes\n\n==> a.wav <==\n1 bytes\n\n==> b.mp3 <==\n22 bytes\n"
    )
    assert err == b""
    assert process.returncode == 0


async def test_more_files_than_slots_wait_here_not_on_the_bus(workers: Workers, tmp_path: Path):
    await workers.start(seconds=0.1, slots=1)
    names = [f"{n}.wav" for n in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    # Each may take a second; all together take longer.
    ended = await shell(
        "transcribe", *names, "--timeout", "1", cwd=tmp_path, NATS_URL=workers.server.url
    )
    assert ended.err == ""
    assert ended.out.count("1 bytes") == 12


async def test_a_file_that_fails_is_named_and_the_others_go_on(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    (folder / "sub").mkdir()
    ended = await shell(
        "transcribe", "a.wav", "gone.wav", "sub", "b.mp3", cwd=folder, NATS_URL=workers.server.url
    )
    assert ended.status == 1
    assert ended.out == "==> a.wav <==\n1 bytes\n\n==> b.mp3 <==\n22 bytes\n"
    assert ended.err.splitlines() == [
        "bus-worker: gone.wav: no such file or directory",
        "bus-worker: sub: is a directory",
    ]


async def test_what_a_worker_refuses_is_its_own_sentence(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell(
        "transcribe", "a.wav", "--prompt", "x" * 5000, cwd=folder, NATS_URL=workers.server.url
    )
    assert (ended.status, ended.out) == (1, "")
    assert ended.sentence.startswith("a.wav: 'options.prompt'")


async def test_the_options_reach_the_worker(workers: Workers, folder: Path):
    service = await workers.start(seconds=0)
    asked = []
    draft = service._transcriber.draft

    def listening(request, **options):
        asked.append(request)
        return draft(request, **options)

    object.__setattr__(service, "_transcriber", _Listening(service._transcriber, listening))
    ended = await shell(
        "transcribe", "b.mp3", "--language", "de", "--task", "translate", "--prompt", "Also",
        "--words", cwd=folder, NATS_URL=workers.server.url,
    )  # fmt: skip
    assert ended.status == 0
    (request,) = asked
    assert request.format == "mp3"
    assert request.options.model_dump(exclude_defaults=True) == {
        "language": "de",
        "task": "translate",
        "prompt": "Also",
        "word_timestamps": True,
    }


class _Listening:
    """A transcriber whose drafts are looked at."""

    def __init__(self, transcriber, draft):
        self._transcriber = transcriber
        self.draft = draft

    def __getattr__(self, name):
        return getattr(self._transcriber, name)


async def test_standard_input_is_a_file_named_dash(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell(
        "transcribe", "-", "--format", "json", cwd=folder, stdin=b"12345",
        NATS_URL=workers.server.url,
    )  # fmt: skip
    assert ended.err == ""
    answer = json.loads(ended.out)
    assert (answer["file"], answer["text"]) == ("-", "5 bytes")


async def test_a_named_pipe_is_read_to_its_end(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    os.mkfifo(folder / "pipe")
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    async with started("transcribe", "pipe", **on_bus) as process:
        await asyncio.to_thread((folder / "pipe").write_bytes, b"1234567")
        out, err = await process.communicate()
    assert (out, err) == (b"7 bytes\n", b"")


async def test_json_is_a_line_a_file_with_its_name(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell(
        "transcribe", "a.wav", "b.mp3", "--format", "json", cwd=folder, NATS_URL=workers.server.url
    )
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert [a["file"] for a in answers] == ["a.wav", "b.mp3"]
    assert [a["text"] for a in answers] == ["1 bytes", "22 bytes"]
    assert answers[0]["model"] == {"name": "pretend", "revision": None}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\npart 0\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\npart 0\n"),
    ],
)
async def test_subtitles_are_printed_for_one_file_and_written_for_several(
    form: str, expected: str, workers: Workers, folder: Path
):
    await workers.start(seconds=0)
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    one = await shell("transcribe", "a.wav", "--format", form, **on_bus)
    assert (one.status, one.out) == (0, expected)
    several = await shell("transcribe", "a.wav", "b.mp3", "--format", form, **on_bus)
    assert several.status == 2
    assert several.sentence == f"{form} of several files needs --output DIR"
    written = await shell(
        "transcribe", "a.wav", "b.mp3", "--format", form, "--output", "made/here", **on_bus
    )
    assert (written.status, written.out, written.err) == (0, "", "")
    assert {p.name: p.read_text() for p in (folder / "made" / "here").iterdir()} == {
        f"a.{form}": expected,
        f"b.{form}": expected,
    }


async def test_two_files_of_one_name_are_not_written_over_each_other(folder: Path):
    ended = await shell("transcribe", "a.wav", "x/a.mp3", "--output", "o", cwd=folder)
    assert ended.status == 2
    assert ended.sentence == "--output would write o/a.txt twice"


async def test_an_output_folder_that_cannot_be_written_is_said(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell(
        "transcribe", "a.wav", "--output", "b.mp3/x", cwd=folder, NATS_URL=workers.server.url
    )
    assert ended.status == 1
    assert ended.sentence == "a.wav: not a directory"


async def test_no_bus_is_said_in_one_sentence(folder: Path):
    ended = await shell("transcribe", "a.wav", cwd=folder, NATS_URL=NOBODY)
    assert ended.status == 1
    assert ended.sentence.startswith("cannot connect to the bus at nats://127.0.0.1:1: ")


async def test_a_missing_file_is_said_without_asking_the_bus(folder: Path):
    ended = await shell("transcribe", "gone.wav", cwd=folder, NATS_URL=NOBODY)
    assert ended.status == 1
    assert ended.sentence == "gone.wav: no such file or directory"


async def test_a_wrong_token_is_said_and_not_shown(folder: Path):
    async with nats_server(token="right") as server:
        url = server.url.replace("//", "//wrong-one@")
        ended = await shell("transcribe", "a.wav", cwd=folder, NATS_URL=url)
    assert ended.status == 1
    assert "Authorization Violation" in ended.sentence
    assert "wrong-one" not in ended.err


async def test_nobody_there_and_no_such_model_are_told_apart(workers: Workers, folder: Path):
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    nobody = await shell("transcribe", "a.wav", **on_bus)
    assert nobody.status == 1
    assert "no worker is on the bus" in nobody.sentence
    await workers.start(model="pretend")
    unknown = await shell("transcribe", "a.wav", "--model", "large-v9", **on_bus)
    assert unknown.status == 1
    assert unknown.sentence == "a.wav: no worker serves 'large-v9'; served: pretend"


async def test_settings_say_which_model_is_asked_for(workers: Workers, folder: Path):
    await workers.start(model="pretend", seconds=0)
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    chosen = await shell("transcribe", "a.wav", WHISPER_MODEL="large-v9", **on_bus)
    assert "no worker serves 'large-v9'" in chosen.sentence
    mapped = await shell("transcribe", "a.wav", **on_bus)  # the server maps it to `pretend`
    assert mapped.out == "1 bytes\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
async def test_ctrl_c_is_quiet_and_cancels_on_the_bus(
    number: signal.Signals, status: int, workers: Workers, folder: Path
):
    service = await workers.start(seconds=60, slots=3)
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    async with started("transcribe", "a.wav", "b.mp3", **on_bus) as process:
        await until(lambda: service.credits.busy == 2, 30)
        process.send_signal(number)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    assert (out, err) == (b"", b"")
    assert process.returncode == status
    await until(lambda: service.counts["cancelled"] == 2)
    await until(lambda: service.credits.free == 3)


async def test_a_reader_that_has_gone_is_no_traceback(workers: Workers, folder: Path):
    await workers.start(seconds=0.01, slots=2)
    reading, writing = os.pipe()
    os.close(reading)
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    async with started("transcribe", "a.wav", "b.mp3", stdout=writing, **on_bus) as process:
        os.close(writing)
        _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_a_terminal_sees_how_far_it_is(workers: Workers, folder: Path):
    service = await workers.start(seconds=1.5, slots=1)
    terminal, theirs = os.openpty()
    on_bus = {"cwd": folder, "NATS_URL": workers.server.url}
    async with started("transcribe", "a.wav", "b.mp3", stderr=theirs, **on_bus) as process:
        os.close(theirs)
        out, _ = await process.communicate()
    shown = await asyncio.to_thread(_read_all, terminal)
    assert service.counts["ok"] == 2
    assert out.count(b"bytes") == 2
    assert "0/2 files, 1 s" in shown
    assert "[##########..........] 1/2 files" in shown
    assert shown.endswith("\r\x1b[K")


def _read_all(terminal: int) -> str:
    read = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while block := os.read(terminal, 65536):
            read += block
    os.close(terminal)
    return read.decode()


async def test_the_settings_of_the_folder_count(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    (folder / ".env").write_text(f"NATS_URL={workers.server.url}\n")
    ended = await shell("transcribe", "a.wav", cwd=folder)
    assert ended.out == "1 bytes\n"
