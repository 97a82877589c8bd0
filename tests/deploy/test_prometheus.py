"""What Prometheus is given is what it takes, and says what is true of the house."""

import re

import pytest

from bus_worker.errors import error_for_code
from bus_worker.settings import Settings
from tests.helpers import docs
from tests.helpers.watching import DEPLOY, alerts, run

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = alerts()


def by_name(rule):
    return rule["alert"]


def test_prometheus_takes_its_configuration_and_the_rules_it_names():
    said = run("promtool", "check", "config", "prometheus.yml", folder=PROMETHEUS)
    assert f"{len(ALERTS)} rules found" in said


def test_every_alert_rings_when_it_should_and_not_before():
    run("promtool", "test", "rules", "rules_test.yml", folder=PROMETHEUS)


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_says_how_bad_it_is_what_it_means_and_what_to_do(rule):
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["description"].split()) > 15


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_is_tried_and_stands_in_the_page(rule):
    name, severity = rule["alert"], rule["labels"]["severity"]
    tried = (PROMETHEUS / "rules_test.yml").read_text()
    assert re.search(rf'alertname="{name}",severity="{severity}"', tried)
    assert f"| `{name}` | {severity} | " in (DEPLOY / "README.md").read_text()


def test_the_page_has_no_alert_that_is_gone():
    rows = re.findall(
        r"^\| `(\w+)` \| (?:critical|warning) ", (DEPLOY / "README.md").read_text(), re.MULTILINE
    )
    assert rows == [rule["alert"] for rule in ALERTS]


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_what_an_alert_tells_one_to_type_or_to_set_exists(rule):
    advice = rule["annotations"]["description"]
    commands = {row.partition("`")[2].rpartition("`")[0] for row in docs.commands().splitlines()}
    for typed in re.findall(r"`(bus-worker [^`]*)`", advice):
        assert typed in commands
    settings = {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", advice)) <= settings
    named = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", advice))
    assert named <= {rule["alert"] for rule in ALERTS}


def test_the_errors_that_ring_are_those_of_ours_that_nobody_mends():
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "RequestsFail")
    (named,) = set(re.findall(r'code=~"([^"]*)"', rule["expr"]))
    codes = set(named.split("|"))
    for code in codes - {"other"}:
        assert error_for_code(code, "", {}).status >= 500
    assert codes == {"failed", "deadline_exceeded", "unavailable", "other"}
