"""The effective settings, printed."""

from pathlib import Path

import pytest

from bus_worker.settings import environment, load_settings
from tests.helpers.shell import shell


async def test_config_masks_what_is_secret(tmp_path: Path):
    ended = await shell(
        "config", cwd=tmp_path, NATS_URL="nats://me:hush@a:1,nats://hush@b:2", NATS_TOKEN="hush",
        NATS_PASSWORD="hush", SUBJECT_PREFIX="mine", NORMALIZE__PEAK="0.5",
        REDIS_URL="redis://me:hush@r:6379/0?password=hush",
    )  # fmt: skip
    assert ended.status == 0
    assert "hush" not in ended.out
    assert ended.err == ""
    lines = ended.out.splitlines()
    where = {line: n for n, line in enumerate(lines)}
    assert "NATS_URL=nats://***@a:1,nats://***@b:2" in where
    assert "NATS_TOKEN=***" in where
    assert "REDIS_URL=redis://***@r:6379/0" in where
    assert where["SUBJECT_PREFIX=mine"] < where["# defaults"] < where["QUEUE_GROUP=stt-workers"]
    assert "NORMALIZE__PEAK=0.5" in where


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("hush@127.0.0.1:4222", "NATS_URL=***@127.0.0.1:4222"),
        ("nats://a:1,me:hush@h:3", "NATS_URL=nats://a:1,***@h:3"),
    ],
)
async def test_config_masks_an_address_without_a_scheme(tmp_path: Path, url: str, line: str):
    ended = await shell("config", cwd=tmp_path, NATS_URL=url)
    assert line in ended.out.splitlines()
    assert "hush" not in ended.out + ended.err


async def test_what_config_prints_is_a_env_file_that_means_the_same(tmp_path: Path):
    asked = {
        "MODEL_NAME": "it's a \"name\" # 'ok' \\", "API_WORKERS": "7",
        "PLUGINS_PATH": " , a b,", "WHISPER__TEMPERATURES": "0.0,0.4",
    }  # fmt: skip
    (tmp_path / "a b").mkdir()
    ended = await shell("config", cwd=tmp_path, **asked)
    assert ended.err == ""
    (tmp_path / ".env").write_text(ended.out)
    again = await shell("config", cwd=tmp_path)
    assert again.err == ""
    values = [
        {line for line in text.splitlines() if not line.startswith("#")}
        for text in (ended.out, again.out)
    ]
    assert values[0] == values[1]
    settings = load_settings(environment(tmp_path))
    assert settings.model_name == asked["MODEL_NAME"]
    assert settings.plugins_path == ("a b",)
