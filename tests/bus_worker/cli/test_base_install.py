"""The command line where only the client's libraries are installed."""

from pathlib import Path

import pytest

from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.house import Workers
from tests.helpers.shell import COMMAND, shell

REFUSING = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"av", "ctranslate2", "faster_whisper", "huggingface_hub", "librosa",
                                       "numpy", "redis", "soundfile", "soxr", "structlog", "tqdm"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from bus_worker.cli import main
sys.exit(main())
"""
BASE_INSTALL = (*COMMAND[:2], "-c", REFUSING)
"""`bus-worker` where only the client's libraries are installed."""


async def test_a_base_install_transcribes_over_the_bus(workers: Workers, folder: Path):
    await workers.start(seconds=0)
    ended = await shell(
        "transcribe", "a.wav", "b.mp3", cwd=folder, program=BASE_INSTALL,
        NATS_URL=workers.server.url,
    )  # fmt: skip
    assert ended.err == ""
    assert ended.out == "==> a.wav <==\n1 bytes\n\n==> b.mp3 <==\n22 bytes\n"


@pytest.mark.parametrize("arguments", [["run"], ["transcribe", "--local", "a.wav"], ["plugins"]])
async def test_a_base_install_says_what_more_it_needs(arguments: list[str], folder: Path):
    ended = await shell(*arguments, cwd=folder, program=BASE_INSTALL)
    assert ended.status == 1
    assert "pip install 'bus-worker[worker]'" in ended.sentence


async def test_a_base_install_shows_its_settings_and_its_health(workers: Workers, folder: Path):
    await workers.start()
    await make_streams((await workers.bus()).client, Subjects())
    config = await shell("config", cwd=folder, program=BASE_INSTALL)
    assert (config.status, config.err) == (0, "")
    assert "SUBJECT_PREFIX=stt" in config.out
    assert "# options of stages: not known without" in config.out
    doctor = await shell("doctor", cwd=folder, program=BASE_INSTALL, NATS_URL=workers.server.url)
    assert (doctor.status, doctor.err) == (0, "")
    assert "- worker       not installed" in doctor.out
