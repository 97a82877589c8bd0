"""`deploy`: what it refuses, and that a dry run only looks. What it does is tried on a whole machine: `test_machine.py`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.docs import ROOT

SCRIPTS = ROOT / "deploy" / "scripts"
DEPLOY = SCRIPTS / "deploy"
LOOKS = {
    "awk", "basename", "base64", "bash", "cat", "cmp", "cut", "dirname", "git", "grep", "gzip", "head", "hostname", "id",
    "mktemp", "nproc", "paste", "readlink", "rm", "sed", "seq", "sha256sum", "sort", "stat", "tail", "tar", "uname", "wc",
    "ls",
}  # fmt: skip
"""Programs that only look, or touch what `mktemp` made; in a dry run none but these is there."""


def deploy(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPLOY, *arguments], env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(p.name for p in SCRIPTS.iterdir() if p.is_file()))
def test_every_script_of_bash_is_clean(name: str):
    text = (SCRIPTS / name).read_text()
    if not text.startswith(("#!/usr/bin/env bash", "# shellcheck")):
        assert text.startswith(("#!/usr/bin/env python3", '"""'))  # ruff looks at these
        return
    done = subprocess.run(["shellcheck", SCRIPTS / name], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "which server?"),
        (("a", "b"), "one server at a time"),
        (("--workers", "0", "host"), "--workers 0: a number from 1 to 99"),
        (("--workers",), "--workers needs a value"),
        (("--model", "base; reboot", "host"), "--model base; reboot: a name, or a folder"),
        (("--domain=a b", "host"), "--domain a b: a name"),
        (("--certificate", "letsencrypt", "host"), "needs --domain"),
        (("--certificate", "/one.pem", "host"), "--certificate /one.pem: letsencrypt, none"),
        (("--force", "host"), "there is no option --force"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(arguments: tuple[str, ...], why: str):
    done = deploy(*arguments, PATH="/usr/bin:/bin")
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_cannot_be_reached_is_a_failure(tmp_path: Path):
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    done = deploy("host", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 255


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """An ssh to a fresh server that has no program but those which look: what a dry run may use."""
    there = tmp_path / "there"
    there.mkdir()
    for name in LOOKS:
        (there / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    (there / "id").unlink()
    (there / "id").write_text('#!/bin/sh\n[ "$#" = 1 ] && echo 0\n')  # root, and no user bus-worker
    (there / "id").chmod(0o755)
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID=12\nPRETTY_NAME="Debian"\n')
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"""#!/bin/bash
        script=$(sed -e 's#/run/systemd/system#/#; s#/etc/os-release#{tmp_path}/os-release#' \\
          -e 's#/opt/bus-worker#{tmp_path}/opt#g; s#/etc/bus-worker#{tmp_path}/etc#g' \\
          -e 's#/etc/systemd/system#{tmp_path}/units#g; s#/etc/nginx#{tmp_path}/nginx#g' \\
          -e 's#PATH=/usr/local/sbin.*#PATH={there}#')
        exec bash -c "$script"
        """
    )
    ssh.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_a_dry_run_says_every_step_and_touches_nothing(fresh: dict[str, str], tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    done = deploy("--dry-run", "--workers=3", "--domain=stt.example.org", "host", **fresh)
    assert (done.returncode, sorted(tmp_path.rglob("*"))) == (0, before), done.stderr
    again = deploy("--dry-run", "--workers=3", "--domain=stt.example.org", "host", **fresh)
    assert again.stdout == done.stdout  # the same files are the same release
    head, *steps, end = done.stdout.splitlines()
    assert "nothing runs there" in head
    assert {step.split()[0] for step in steps} == {"would", "ok"}
    said = "\n".join(steps)
    for word in ("packages", "passwords", "model is base", "redis", "3 workers", "firewall", "stt.example.org"):  # fmt: skip
        assert word in said
    assert end.endswith("nothing was touched")


def test_there_is_nothing_to_go_back_to_on_a_fresh_server(fresh: dict[str, str]):
    done = deploy("--rollback", "--dry-run", "host", **fresh)
    assert done.returncode == 1
    assert done.stderr == "deploy: there is no release to go back to\n"
