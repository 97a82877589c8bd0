"""The programs that watch: Prometheus and Alertmanager with their tools, as the system has them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.docs import ROOT

DEPLOY = ROOT / "deploy"


def installed(*names: str) -> str:
    """Where a program is; without it there is nothing to try, except where everything must be tried.

    Args:
        names: what it may be called.
    """
    program = names[0]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"there is no {program} here")
    if found is None:
        pytest.skip(f"there is no {program} here")
    return found


def run(program: str, *arguments: str, folder: Path) -> str:
    """What a tool says; fails with it where the tool fails."""
    done = subprocess.run(
        [installed(program), *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    """Every alert of `rules.yml`."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
