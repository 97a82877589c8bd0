"""The tree keeps its promises: what the pages and the code say of each other is true."""

import ast
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import pytest
from cogapp import Cog

import bus_worker
import gateway
import plugins
from bus_worker.errors import SetupError, error_for_code
from bus_worker.loader import find_stages
from bus_worker.settings import Settings, load_settings
from tests.helpers import docs

ROOT = docs.ROOT
SCRIPTS = Path(sys.executable).parent
PAGES = ("README.md", "bus_worker/README.md", "gateway/README.md", "plugins/README.md")
SOURCES = sorted(
    path
    for package in (bus_worker, plugins, gateway)
    for path in ROOT.glob(f"{package.__name__}/**/*.py")
)
STAGES = find_stages()
HEAVY = (
    "aiohttp", "av", "ctranslate2", "faster_whisper", "httpcore2", "huggingface_hub", "numpy", "prometheus_client",
    "pydantic", "redis", "soundfile", "starlette", "structlog", "tqdm",
)  # fmt: skip
"""What none of a caller's process should pay for."""


def page(name: str) -> str:
    return (ROOT / name).read_text()


def rooms() -> list[str]:
    """Every room of bus_worker but `__main__`, which runs when it is imported."""
    found = pkgutil.iter_modules(bus_worker.__path__, "bus_worker.")
    return [room.name for room in found if not room.name.endswith("__main__")]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


# --- imports ---------------------------------------------------------------------------------


def test_imports_go_one_way():
    done = run(str(SCRIPTS / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout


def test_the_client_takes_no_heavy_library_with_it():
    code = f"import bus_worker.client, sys; print(*sorted({{*sys.modules}} & {{*{HEAVY!r}}}))"
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_the_package_itself_imports_nothing():
    tree = ast.parse(page("bus_worker/__init__.py"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("name", rooms())
def test_all_names_what_a_room_has_for_others(name):
    room = importlib.import_module(name)
    assert [n for n in room.__all__ if not hasattr(room, n)] == []
    assert set(defined(room)) <= set(room.__all__)


def defined(module: ModuleType) -> Iterator[str]:
    """Public functions and classes that a module defines."""
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and not node.name.startswith("_"):
            yield node.name


def test_no_room_takes_what_another_keeps_to_itself():
    taken = [
        f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in rooms()
        for alias in node.names
        if alias.name not in importlib.import_module(node.module).__all__
        and not (ROOT / node.module.replace(".", "/") / f"{alias.name}.py").is_file()
    ]
    assert taken == []


def test_only_settings_reads_the_environment():
    readers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in {"environ", "getenv"}
    ]
    assert set(readers) == {"bus_worker/settings.py"}


# --- pages -----------------------------------------------------------------------------------


def test_the_pages_tables_are_those_of_the_code():
    said = io.StringIO()
    command = ["cog", "--check", "-P", "-p", "from tests.helpers import docs"]
    with redirect_stdout(said), redirect_stderr(said):
        status = Cog().main([*command, *(str(ROOT / name) for name in PAGES)])
    assert status == 0, f"run `make docs`:\n{said.getvalue()}"


def test_env_example_is_that_of_the_code():
    assert page(".env.example") == docs.env_example(), "run `make docs`"


def test_env_example_with_every_line_switched_on_changes_nothing():
    lines = re.findall(r"^#([A-Z_]+)=(.*)$", page(".env.example"), re.MULTILINE)
    assert [name for name, _ in lines] == [name.upper() for name in Settings.model_fields]
    assert load_settings({name: value for name, value in lines if value}) == Settings()


def test_every_setting_is_described_in_the_readme():
    readme = page("README.md")
    assert [n for n, field in Settings.model_fields.items() if not field.description] == []
    assert [n for n in Settings.model_fields if f"| `{n.upper()}` |" not in readme] == []


@pytest.mark.parametrize("kind", docs.error_kinds(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_and_a_row(kind):
    (row,) = (
        line for line in page("README.md").splitlines() if line.startswith(f"| `{kind.code}` |")
    )
    assert f"`{kind.__name__}`" in row
    assert (str(kind.status) in row) != issubclass(kind, SetupError)
    assert type(error_for_code(kind.code, "", {})) is kind


def test_every_error_class_that_is_a_leaf_has_a_code():
    kinds = list(docs.error_kinds())
    assert len({kind.code for kind in kinds}) == len(kinds)
    leaves = {
        value
        for value in vars(importlib.import_module("bus_worker.errors")).values()
        if isinstance(value, type) and issubclass(value, Exception) and not value.__subclasses__()
    }
    assert leaves <= set(kinds)


def test_every_command_is_in_the_readme():
    done = run(str(SCRIPTS / "bus-worker"), "--help")
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^ {4}([a-z]+)\b", done.stdout, re.MULTILINE)
    assert {"up", "run", "transcribe"} <= set(names)
    assert [name for name in names if f"| `bus-worker {name}" not in page("README.md")] == []


@pytest.mark.parametrize("package", ["bus_worker", "gateway"])
def test_the_architecture_pages_are_short_and_name_every_room(package):
    text = page(f"{package}/README.md")
    assert len(text.splitlines()) <= 150
    for path in (ROOT / package).rglob("*.py"):
        if path.stem != "__init__":
            assert f"`{path.name}`" in text
        elif path.parent.name != package:
            assert f"`{path.parent.name}/`" in text


# --- stages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_a_test_and_a_line_in_the_page(name):
    assert list((ROOT / "tests" / "plugins").glob(f"test_{name}*.py"))
    assert f"### `{name}`" in page("plugins/README.md")


@pytest.mark.parametrize("name", STAGES)
def test_every_option_is_described(name):
    options = STAGES[name].options.model_fields
    assert [option for option, field in options.items() if not field.description] == []


def test_every_stage_of_the_default_pipeline_is_built_in():
    assert set(Settings().pipeline) <= set(STAGES)


# --- what is installed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_by_hash_and_name_no_address(name):
    pins = [block for block in re.split(r"\n(?=[a-z])", page(name)) if "==" in block]
    assert pins
    assert [pin for pin in pins if "--hash=sha256:" not in pin] == []
    assert not re.search(r"https?:|file:|@ |--(extra-)?index|--find-links|torch", page(name))


def test_lock_files_of_node_name_no_address():
    locks = [
        path
        for path in (
            *ROOT.glob("deploy/*/package-lock.json"),
            *ROOT.glob("tests/**/package-lock.json"),
        )
        if "node_modules" not in path.parts
    ]
    assert len(locks) >= 2
    assert [path for path in locks if "://" in path.read_text()] == []


def test_what_runs_is_pinned_alike_for_both():
    run_pins, dev_pins = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", page(name), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert run_pins.items() <= dev_pins.items()


def test_no_aiohttp_is_installed_whoever_asks_for_it():
    """Nor by a dependency of a dependency; a lock file alone could be wrong."""
    installed = {str(one.metadata["Name"]).lower() for one in distributions()}
    assert {"starlette", "uvicorn", "openai", "schemathesis"} <= installed
    assert [name for name in installed if name.startswith(("aiohttp", "fastapi"))] == []
    assert not re.search(r"^aiohttp", page("requirements-dev.txt"), re.MULTILINE)


def test_the_wheel_holds_the_three_packages_and_no_tests(tmp_path):
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    done = run(sys.executable, "-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"bus_worker", "gateway", "plugins"}
    assert "bus_worker/py.typed" in names
    assert [name for name in names if "test_" in name or "__pycache__" in name] == []
    page_files = (ROOT / "gateway" / "page").glob("*.*")
    assert {str(path.relative_to(ROOT)) for path in (*SOURCES, *page_files)} <= set(names)


def test_every_make_target_is_listed_by_make():
    makefile = page("Makefile")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    done = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert re.findall(r"^make (\w+) +\S", done.stdout, re.MULTILINE) == phony.split()
