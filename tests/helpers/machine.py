"""A whole machine to deploy to: a fresh Debian that systemd boots, in namespaces of its own, reached by ssh.

It needs root, debootstrap, systemd-nspawn, iptables and a package index that it can reach. MACHINE_BINDS names folders of
this machine that its pip.conf speaks of; MACHINE_BASE a tree that debootstrap made, to be copied instead of making one.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.docs import ROOT

HERE, THERE = "10.77.6.1", "10.77.6.2"
LINK = "stt-trial"
"""The machine's name; the kernel's name of its cable is `ve-` and this."""
PACKAGES = "systemd,systemd-sysv,dbus,openssh-server,ca-certificates,iproute2,procps"
NEEDED = ("debootstrap", "systemd-nspawn", "ssh-keygen", "iptables")
BOOTS_WITHIN = 60
CHECKOUT = (
    "bus_worker", "gateway", "plugins", "deploy", "pyproject.toml", "README.md", "LICENSE", "requirements.txt",
)  # fmt: skip


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Machine:
    """Where it lies, and how one gets in."""

    folder: Path

    @property
    def ssh_options(self) -> list[str]:
        """For ssh, and for `deploy --ssh-option`."""
        known = f"-oUserKnownHostsFile={self.folder}/known"
        return [f"-i{self.folder}/key", "-oStrictHostKeyChecking=no", known, "-oConnectTimeout=2"]

    def run(self, command: str) -> str:
        """What a command says there."""
        done = subprocess.run(
            ["ssh", *self.ssh_options, f"root@{THERE}", command],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def deploy(self, checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One run of the command, from a checkout."""
        options = [f"--ssh-option={option}" for option in self.ssh_options]
        return subprocess.run(
            [checkout / "deploy/scripts/deploy", *options, *arguments, f"root@{THERE}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def checkout(self, name: str, *change: str) -> Path:
        """The tree as it is here, without git; in one file a text may be changed: (path, old, new)."""
        made = self.folder / name
        made.mkdir()
        for part in CHECKOUT:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(
                    source,
                    made / part,
                    ignore=shutil.ignore_patterns("__pycache__", "node_modules", ".next"),
                )
            else:
                shutil.copy(source, made / part)
        if change:
            path, old, new = change
            text = (made / path).read_text()
            assert old in text
            (made / path).write_text(text.replace(old, new, 1))
        return made


def _lay_out(machine: Machine) -> Path:
    """A fresh Debian that knows us, its network and our package indexes."""
    root = machine.folder / "root"
    if base := os.environ.get("MACHINE_BASE"):
        _run("cp", "-a", base, root)
    else:
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", machine.folder / "key")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(machine.folder / "key.pub", root / "root/.ssh/authorized_keys")
    (root / "etc/machine-id").unlink(missing_ok=True)
    (root / "etc/systemd/network/10-host0.network").write_text(
        f"[Match]\nName=host0\n[Network]\nAddress={THERE}/24\nGateway={HERE}\n"
    )
    _run("systemctl", f"--root={root}", "enable", "systemd-networkd")
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", resolv)
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    shutil.copy(bundle, root / "etc/ssl/host.crt")
    if Path("/etc/pip.conf").exists():
        text = Path("/etc/pip.conf").read_text().replace(bundle, "/etc/ssl/host.crt")
        (root / "etc/pip.conf").write_text(text)
    return root


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A booted machine; it is switched off in the end."""
    made = Machine(folder)
    root = _lay_out(made)
    binds = [f"--bind-ro={each}" for each in os.environ.get("MACHINE_BINDS", "").split() if each]
    command = ["systemd-nspawn", "-q", "--keep-unit", "--register=no", "--network-veth", "--boot"]
    nat = ["POSTROUTING", "-s", f"{HERE}/24", "-j", "MASQUERADE"]
    with (folder / "boot.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-M", LINK, "-D", root, *binds],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _until(lambda: Path(f"/sys/class/net/ve-{LINK}").exists())
        _run("ip", "address", "replace", f"{HERE}/24", "dev", f"ve-{LINK}")
        _run("ip", "link", "set", f"ve-{LINK}", "up")
        _run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        _run("iptables", "-t", "nat", "-A", *nat)
        _until(lambda: _answers(made))
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)
        subprocess.run(["iptables", "-t", "nat", "-D", *nat], check=False, capture_output=True)


def _answers(made: Machine) -> bool:
    command = ["ssh", *made.ssh_options, f"root@{THERE}", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _until(condition: object, within: float = BOOTS_WITHIN) -> None:
    assert callable(condition)
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the machine does not come up"
        time.sleep(0.25)
