"""The dashboard asks for what there is: a real Prometheus looks at real workers and a gateway."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from bus_worker.bus import Address, connect
from bus_worker.embedded import nats_server
from bus_worker.streams import make_streams
from tests.helpers.gateway import gateway
from tests.helpers.house import NAMES
from tests.helpers.processes import Processes
from tests.helpers.prometheus import Prometheus, config, prometheus
from tests.helpers.tones import tone, wav_bytes
from tests.helpers.watching import DEPLOY, alerts

PROVISIONING = DEPLOY / "grafana" / "provisioning"
DASHBOARD = json.loads((PROVISIONING / "dashboards" / "bus-worker.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
LOOKS = 30
"""Times that a query without an answer is put again: Prometheus looks once a second, when it gets to it."""
NAMED = re.compile(r"\b(?:bus_worker|bus_gateway|process)_\w+")
HEARD = {
    "PIPELINE": "decode,limits,whisper,tidy", "WHISPER_MODEL": "tiny.en", "WHISPER__VAD": "false",
    "CACHE_ENABLED": "true", "METRICS_PORT": "0",
}  # fmt: skip


async def targets(url: str, file: Path) -> None:
    """What `deploy/scripts/targets` finds on that bus."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DEPLOY / "scripts" / "targets"),
        "--host", "127.0.0.1", "--output", str(file),
        cwd=file.parent.parent, env={"NATS_URL": url},
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def work(door, seen: Prometheus) -> None:
    """A request of each kind, before and after Prometheus has looked: a rate is between two looks."""
    async with door.caller(headers={"Content-Type": "audio/wav"}) as http:
        for number in (1, 2):
            body = wav_bytes(tone(number))
            for _ in range(2):
                assert (await http.post("/transcribe", content=body)).status_code == 200
            assert (await http.post("/transcribe", content=b"no audio")).status_code == 400
            job = (await http.post("/jobs", content=wav_bytes(tone(number + 0.5)))).json()
            await seen.until(f'sum(bus_worker_jobs_total{{status="done"}}) == {number}')
            await http.get(f"/jobs/{job['job_id']}")
            await seen.until('bus_gateway_requests_total{route="/jobs"}')


@pytest.mark.timeout(150)  # two models are loaded, and Prometheus looks once a second
async def test_every_query_of_dashboard_and_alerts_is_answered_by_a_real_prometheus(tmp_path):
    folder = tmp_path / "prometheus"
    async with (
        nats_server(default_model="tiny.en") as bus,
        connect(Address((bus.url,))) as line,
        Processes(bus.url, tmp_path) as processes,
        gateway(bus.url, default_model="tiny.en") as door,
    ):
        await make_streams(line.client, NAMES, "tiny.en")
        workers = await processes.start(2, **HEARD)
        config(folder, door.url.removeprefix("http://"))
        await targets(bus.url, folder / "targets" / "workers.json")
        async with prometheus(folder) as seen:
            await seen.until('count(up{job="bus-worker"} == 1) == 2')
            await seen.until('up{job="bus-gateway"} == 1')
            await work(door, seen)
            empty = [asked for asked in QUERIES if not await answered(seen, asked[1])]
            names = set(await seen.ask("label/__name__/values"))
            rules = (await seen.ask("rules"))["groups"]
            labels = (await seen.ask("query", query="bus_worker_ready"))["result"]
    assert empty == []
    assert [each for group in rules for each in group["rules"] if each["health"] != "ok"] == []
    assert {each["metric"]["worker"] for each in labels} == {each.worker_id for each in workers}
    asked = [expr for _, expr in QUERIES] + [rule["expr"] for rule in alerts()]
    assert {name for expr in asked for name in NAMED.findall(expr)} - names == set()
    read = NAMED.findall((DEPLOY / "scripts" / "check_metrics").read_text())
    assert read
    assert [
        name for name in read if name not in names | {f"{n.removesuffix('_bucket')}" for n in names}
    ] == []


async def answered(seen: Prometheus, expr: str) -> bool:
    """Whether a panel's query gives numbers, with every worker chosen and a range as short as our looks."""
    asked = expr.replace("$instance", ".*").replace("$__rate_interval", "30s")
    for _ in range(LOOKS):
        if await seen.values(asked):
            return True
        await asyncio.sleep(0.5)  # a rate is between two looks
    return False


def test_the_dashboard_stands_on_the_datasource_that_is_provisioned():
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    wanted = {"type": source["type"], "uid": source["uid"]}
    assert [panel["title"] for panel in PANELS if panel["datasource"] != wanted] == []
    assert [
        t["expr"] for panel in PANELS for t in panel["targets"] if t["datasource"] != wanted
    ] == []
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "bus-worker.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"


def test_the_dashboard_has_its_rows_and_every_panel_says_what_it_shows():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row.lower() for row in rows] == [
        "overview", "requests", "queue", "stages and engine", "cache", "jobs", "bus", "process",
    ]  # fmt: skip
    assert ", ".join(rows).lower() in " ".join((DEPLOY / "README.md").read_text().split())
    assert [panel["title"] for panel in PANELS if not panel["description"]] == []
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_no_panel_lies_on_another():
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
