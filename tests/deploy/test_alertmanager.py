"""Alertmanager takes its configuration, and tells Slack what a person needs and no more."""

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import yaml

from bus_worker.embedded import die_with_parent
from tests.helpers.checks import slack
from tests.helpers.house import until
from tests.helpers.watching import DEPLOY, alerts, installed, run

FOLDER = DEPLOY / "alertmanager"
TEXT = (FOLDER / "alertmanager.yml").read_text()


def test_alertmanager_takes_its_configuration():
    assert "SUCCESS" in run("amtool", "check-config", "alertmanager.yml", folder=FOLDER)


def test_it_knows_the_alerts_by_their_names_and_holds_no_secret():
    rules = yaml.safe_load(TEXT)["inhibit_rules"]
    matchers = [each for rule in rules for kind in rule.values() for each in kind if "=" in each]
    named = {name for each in matchers for name in each.split('"')[1].split("|")}
    assert named <= {rule["alert"] for rule in alerts()}
    assert "://" not in TEXT


def in_a_hurry(url_file: Path) -> str:
    """Our configuration without its waits, and with the address where the test has it."""
    ours = yaml.safe_load(TEXT)
    assert ours["global"]["slack_api_url_file"] == "/etc/alertmanager/slack_url"
    ours["global"]["slack_api_url_file"] = str(url_file)
    for route in (ours["route"], *ours["route"]["routes"]):
        route |= {"group_wait": "500ms", "group_interval": "1s"}
    return yaml.safe_dump(ours)


@contextlib.asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        installed("prometheus-alertmanager", "alertmanager"), "--config.file=alertmanager.yml",
        "--storage.path=data", f"--web.listen-address={address}", "--cluster.listen-address=",
        cwd=folder, preexec_fn=die_with_parent(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        transport = httpx2.AsyncHTTPTransport(retries=8)  # with longer and longer waits between
        async with httpx2.AsyncClient(
            base_url=f"http://{address}", transport=transport, trust_env=False
        ) as http:
            yield http
    finally:
        process.kill()
        await process.wait()


def ringing(alert: str, severity: str, **more: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": alert, "severity": severity, **more},
        "annotations": {"summary": f"What {alert} is", "description": "Do this next."},
    }


async def test_slack_hears_of_the_cause_and_not_of_what_follows(tmp_path):
    async with slack() as there:
        (tmp_path / "slack_url").write_text(there.url)
        (tmp_path / "alertmanager.yml").write_text(in_a_hurry(tmp_path / "slack_url"))
        async with alertmanager(tmp_path) as http:
            sent = await http.post(
                "/api/v2/alerts",
                json=[
                    ringing("WorkerNotReady", "warning", instance="a"),
                    ringing("NoReadyWorker", "critical"),
                    ringing("DeadLetters", "warning"),
                ],
            )
            assert sent.status_code == 200
            await until(lambda: len(there.messages) == 2, limit=30)
    said = {each["title"]: each for (each,) in (m["attachments"] for m in there.messages)}
    assert set(said) == {"critical: NoReadyWorker", "warning: DeadLetters"}
    bad = said["critical: NoReadyWorker"]
    assert bad["color"] == "danger"
    assert bad["text"].strip() == "*What NoReadyWorker is*\nDo this next."
