"""The page on running it names what is there."""

import re

import pytest

from bus_worker.settings import Settings
from tests.helpers.checks import SCRIPTS, Checks
from tests.helpers.docs import ROOT
from tests.helpers.watching import DEPLOY

PAGE = (DEPLOY / "README.md").read_text()
FROM_ELSEWHERE = {"PROMETHEUS_URL", "SLACK_WEBHOOK_URL"}
"""Variables that Grafana and the checks read."""


def test_every_file_that_the_page_names_is_there():
    links = re.findall(r"\]\(([^):]+)\)", PAGE)
    paths = re.findall(r"\bdeploy/[\w./-]+\.yml|\bdeploy/scripts/\w+", PAGE)
    assert links
    assert paths
    assert [link for link in links if not _leads_somewhere(link)] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def _leads_somewhere(link: str) -> bool:
    path, _, heading = link.partition("#")
    target = DEPLOY / (path or "README.md")
    if not heading or not target.exists():
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings}


def test_every_folder_is_in_the_page():
    folders = {path.name for path in DEPLOY.iterdir() if path.is_dir()}
    assert folders == set(re.findall(r"^\| \[([a-z]+)/\]", PAGE, re.MULTILINE))


def test_every_variable_that_the_page_names_is_read_by_somebody():
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE))
    assert named <= {name.upper() for name in Settings.model_fields} | FROM_ELSEWHERE
    scripts = "".join(path.read_text() for path in SCRIPTS.glob("*.py"))
    assert "SLACK_WEBHOOK_URL" in scripts
    assert (
        "PROMETHEUS_URL" in (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )


@pytest.mark.parametrize("script", ["check_health", "check_metrics", "targets"])
def test_every_option_that_the_page_shows_is_one(script):
    shown = re.findall(rf"deploy/scripts/{script}([^\n]*)", PAGE)
    options = {option for line in shown for option in re.findall(r"--[a-z0-9-]+", line)}
    assert options
    text = (SCRIPTS / script).read_text() + (SCRIPTS / "verdict.py").read_text()
    assert [option for option in options if f'"{option}"' not in text] == []


async def test_the_checks_explain_themselves(tmp_path):
    for script in ("check_health", "check_metrics"):
        status, said = await Checks(tmp_path).output(script, "--help")
        assert status == 0
        assert "exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN" in " ".join(said.split())
