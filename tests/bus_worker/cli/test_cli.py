"""Usage, and how a command that fails ends."""

import argparse
import asyncio
import importlib
import os
import pkgutil
import signal
from pathlib import Path

import pytest

from bus_worker import __version__, cli
from bus_worker.cli import build_parser, main
from tests.helpers.shell import COMMAND, NOBODY, PRETEND, shell, started


def commands() -> list[str]:
    groups = build_parser()._subparsers
    assert groups is not None
    (action,) = (a for a in groups._group_actions if isinstance(a, argparse._SubParsersAction))
    return list(action.choices)


def test_each_command_is_a_module_that_runs():
    modules = {name for _, name, _ in pkgutil.iter_modules(cli.__path__)}
    for name in commands():
        assert name in modules
        assert callable(importlib.import_module(f"bus_worker.cli.{name}").run)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], *([c, "--help"] for c in commands())]
)
def test_version_and_help_are_answered(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert (__version__ if arguments == ["--version"] else "usage: bus-worker") in said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["dance"], "dance"),
        (["transcribe"], "FILE"),
        (["transcribe", "a.wav", "--format", "docx"], "docx"),
        (
            ["transcribe", "a.wav", "--language", "English"],
            "'English' is not a language's code such as en",
        ),
        (["transcribe", "a.wav", "--timeout", "soon"], "soon"),
        (["transcribe", "a.wav", "--timeout", "0"], "'0'"),
        (["transcribe", "a.wav", "--timeout", "nan"], "'nan'"),
        (["transcribe", "a.wav", "--form", "srt"], "--form"),
        (["up", "--workers", "0"], "'0'"),
        (["up", "--workers", "-1"], "--workers"),
        (["models"], "ACTION"),
        (["models", "pull"], "NAME"),
        (["run", "twice"], "twice"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("bus-worker: ")
    assert said.count("\n") == 1
    assert named in said
    assert "--help`" in said


def test_an_unforeseen_exception_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(_: object) -> int:
        raise LookupError("what now")

    monkeypatch.setattr("bus_worker.cli.config.run", fails)
    assert main(["config"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bus-worker: unforeseen LookupError: what now (")
    assert said.count("\n") == 1
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    assert main(["config"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["run"], ["up"], ["transcribe", "a.wav"], ["config"], ["setup"]]
)
async def test_a_wrong_setting_stops_every_command_with_its_sentence(
    arguments: list[str], folder: Path
):
    ended = await shell(*arguments, cwd=folder, REQUEST_TIMEOUT="soon")
    assert ended.status == 1
    assert ended.sentence.startswith("REQUEST_TIMEOUT='soon': ")


async def test_a_env_file_that_is_no_text_stops_every_command_with_one_sentence(folder: Path):
    (folder / ".env").write_bytes(b"NATS_TOKEN=h\xf6ren\n")
    for arguments in (["config"], ["transcribe", "a.wav"], ["models", "list"]):
        ended = await shell(*arguments, cwd=folder)
        assert ended.status == 1
        assert ".env is not UTF-8" in ended.sentence


@pytest.mark.parametrize("name", ["CA", "CERT", "KEY", "CREDS", "NKEY"])
async def test_a_file_for_the_bus_that_is_not_there_stops_the_start(name: str, folder: Path):
    ended = await shell("transcribe", "a.wav", cwd=folder, **{f"NATS_{name}": "/nope"})
    assert ended.status == 1
    assert ended.sentence == f"NATS_{name}='/nope': cannot be read: no such file or directory"


async def test_a_file_for_the_bus_that_is_of_no_use_stops_the_start(folder: Path):
    ended = await shell("transcribe", "a.wav", cwd=folder, NATS_KEY="a.wav")
    assert ended.sentence == "NATS_KEY='a.wav': is of no use without its certificate, NATS_CERT"
    ended = await shell("transcribe", "a.wav", cwd=folder, NATS_CA="a.wav")
    assert ended.sentence == "NATS_CA='a.wav': holds no certificate"
    ended = await shell("transcribe", "a.wav", cwd=folder, NATS_CA=".")
    assert ended.sentence == "NATS_CA='.': cannot be read: is a directory"


async def test_a_command_that_outlives_its_test_is_ended(folder: Path):
    os.mkfifo(folder / "pipe")
    with pytest.raises(TimeoutError):
        await shell("transcribe", "pipe", cwd=folder, limit=0.5)
    with pytest.raises(LookupError):
        async with started("transcribe", "pipe", cwd=folder) as process:
            raise LookupError
    assert process.returncode == -signal.SIGKILL


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def test_told_to_stop_as_a_containers_first_process_it_ends_though_it_has_just_begun(
    folder: Path,
):
    """The kernel keeps a signal from the first process of a container unless that process handles it."""
    alone = ("unshare", "--user", "--map-root-user", "--pid", "--fork")
    if (await shell("true", cwd=folder, program=alone)).status:
        pytest.skip("no namespaces of our own here")
    options = {"program": (*alone, *COMMAND), "NATS_URL": NOBODY, "LOG_FORMAT": "json", **PRETEND}
    async with started("run", cwd=folder, **options) as outside:
        assert outside.stderr is not None
        async with asyncio.timeout(30):  # it waits for a bus for ever
            while b"model_loaded" not in await outside.stderr.readline():
                pass
        os.kill(child_of(outside.pid), signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await outside.wait() == 128 + signal.SIGTERM
