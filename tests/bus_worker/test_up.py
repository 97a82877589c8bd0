"""What `up` works out before it starts anything; the real thing is tried in tests/e2e/test_up.py."""

import os

import pytest

from bus_worker import up as up_module
from bus_worker.settings import Settings
from bus_worker.up import _addresses, _Bus, _for_ours, _share


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up_module, "_cores", lambda: 8)
    monkeypatch.setattr(up_module, "_on_gpu", lambda _: False)


@pytest.mark.parametrize(
    ("workers", "threads", "replicas"), [(2, 1, "4"), (3, 1, "2"), (2, 2, "2"), (20, 1, "1")]
)
def test_the_cores_are_shared_out_and_nobody_gets_none(workers: int, threads: int, replicas: str):
    shared = _share(Settings(whisper_threads=threads), workers)
    assert shared["WHISPER_REPLICAS"] == replicas


def test_replicas_that_were_set_and_those_on_a_gpu_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    assert "WHISPER_REPLICAS" not in _share(Settings(whisper_replicas=3), 2)
    monkeypatch.setattr(up_module, "_on_gpu", lambda _: True)
    assert "WHISPER_REPLICAS" not in _share(Settings(), 2)


def test_workers_log_for_a_terminal_when_ours_is_one(monkeypatch: pytest.MonkeyPatch):
    assert _share(Settings(), 1)["LOG_FORMAT"] == "json"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert _share(Settings(), 1)["LOG_FORMAT"] == "console"
    assert "LOG_FORMAT" not in _share(Settings(log_format="json"), 1)


def test_other_machines_get_an_address_that_leads_here():
    assert _addresses("10.1.2.3") == ["10.1.2.3"]
    assert _addresses("fd00::1") == ["[fd00::1]"]
    for host in ("0.0.0.0", "::"):  # noqa: S104 - asked about, not listened on
        (found,) = _addresses(host)
        assert found not in {"", host, "127.0.0.1"}


def test_a_bus_of_ours_takes_no_credentials_meant_for_another():
    asked = Settings.model_validate(
        {
            "nats_user": "me",
            "nats_password": "hush",
            "nats_ca": "/x",
            "nats_inbox_prefix": "_INBOX.a",
        }
    )
    ours = _for_ours(asked, "nats://token@127.0.0.1:4")
    assert ours.nats_url == ("nats://token@127.0.0.1:4",)
    assert (ours.nats_user, ours.nats_password, ours.nats_ca) == (None, None, None)
    assert ours.nats_inbox_prefix == "_INBOX.a"
    variables = _Bus(ours, server=object()).variables  # type: ignore[arg-type]
    assert variables["NATS_URL"] == "nats://token@127.0.0.1:4"
    assert variables["NATS_INBOX_PREFIX"] == "_INBOX.a"
    assert variables["NATS_USER"] == variables["NATS_PASSWORD"] == variables["NATS_CA"] == ""


def test_a_bus_of_others_leaves_the_environment_as_it_is():
    assert _Bus(Settings()).variables == {}


def test_the_cores_of_this_process_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert up_module._cores() == len(os.sched_getaffinity(0))
